// People look at dashboards with many panels, which load at once and again every few seconds.
import { sleep } from 'k6';
import { dashboard, number, text } from './fleet.js';

export const options = {
  scenarios: {
    people: { executor: 'constant-vus', vus: number('DASHBOARDS', 50), duration: text('DURATION', '5m') },
  },
  thresholds: {
    'http_req_duration{kind:read}': ['p(95)<1000', 'p(99)<3000'],
    'http_req_failed{kind:read}': ['rate<0.01'],
    checks: ['rate>0.99'],
  },
};

export default function () {
  dashboard(__VU, number('PANELS', 30), number('HOURS', 6));
  sleep(number('REFRESH_SECONDS', 15) * (0.8 + 0.4 * Math.random()));
}
