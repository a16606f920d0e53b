// A fleet of hubs comes back after an outage: all within a few seconds, each with what it has kept. People look at
// dashboards at the same time. Nothing may be lost, and they must not notice.
import { sleep } from 'k6';
import { Trend } from 'k6/metrics';
import { dashboard, newRun, number, push } from './fleet.js';

const hubs = number('HUBS', 200);
const outageMinutes = number('OUTAGE_MINUTES', 10);
const interval = number('INTERVAL_SECONDS', 15);
const within = number('WITHIN_SECONDS', 120);

const backlog = new Trend('backlog_seconds');

export const options = {
  scenarios: {
    hubs: { executor: 'per-vu-iterations', exec: 'comeBack', vus: hubs, iterations: 1, maxDuration: `${within * 4}s` },
    people: { executor: 'constant-vus', exec: 'look', vus: number('DASHBOARDS', 10), duration: text(within) },
  },
  thresholds: {
    pushes_lost: ['count==0'],
    backlog_seconds: [`p(95)<${within}`],
    'http_req_duration{kind:push}': ['p(99)<5000'],
    'http_req_duration{kind:read}': ['p(95)<1000', 'p(99)<3000'],
    'http_req_failed{kind:read}': ['rate<0.01'],
    'iterations{scenario:hubs}': [`count==${hubs}`],
  },
};

function text(seconds) {
  return `${Math.max(1, Math.min(seconds, 60))}s`;
}

export function setup() {
  return newRun();
}

export function comeBack({ run }) {
  // The network is back for all of them at about the same time.
  sleep(Math.random() * number('SPREAD_SECONDS', 5));
  const began = Date.now();
  const kept = Math.ceil((outageMinutes * 60) / interval);
  for (let at = kept; at > 0; at -= 1) push(run, __VU, began - at * interval * 1000);
  backlog.add((Date.now() - began) / 1000);
}

export function look() {
  dashboard(__VU, number('PANELS', 12), 1);
  sleep(5);
}
