// The mixed load for hours, and the proxy's own memory and restarts beside it: what leaks or grows, shows. Readers
// should be device keys with the scope metrics:read, because tokens expire.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Trend } from 'k6/metrics';
import { number, text } from './fleet.js';
import { options as mixed } from './mixed.js';

export { look, report, setup } from './mixed.js';

const privateUrl = __ENV.MTP_PRIVATE_URL;
const duration = text('DURATION', '4h');
const grown = new Trend('proxy_grown_percent');

const scenarios = Object.fromEntries(
  Object.entries(mixed.scenarios).map(([name, scenario]) => [name, Object.assign({}, scenario, { duration })]),
);
const thresholds = Object.assign({}, mixed.thresholds);
if (privateUrl) {
  scenarios.memory = { executor: 'constant-vus', exec: 'watch', vus: 1, duration };
  // After a first part in which caches fill.
  thresholds.proxy_grown_percent = [`max<${number('MAX_GROWTH_PERCENT', 10)}`];
}

export const options = { scenarios, thresholds };

let first;
const began = Date.now();

// Reads what the proxy says of itself: /metrics of its private port.
export function watch() {
  const metrics = http.get(`${privateUrl}/metrics`, { tags: { kind: 'watch', name: 'watch' } });
  const resident = /^mimir_tenant_proxy_memory_bytes (\S+)/m.exec(metrics.body || '');
  check(resident, { 'the private port says how much memory there is': (found) => found !== null });
  if (resident && Date.now() - began > number('SETTLE_SECONDS', 1800) * 1000) {
    const now = Number(resident[1]);
    first = first || now;
    grown.add((now / first - 1) * 100);
  }
  sleep(15);
}
