// A working day: hubs push at their interval, people look at dashboards and at their rules.
import { sleep } from 'k6';
import exec from 'k6/execution';
import { alerts, dashboard, newRun, number, push, text } from './fleet.js';

const hubs = number('HUBS', 200);
const duration = text('DURATION', '10m');

export const options = {
  scenarios: {
    hubs: {
      executor: 'constant-arrival-rate',
      exec: 'report',
      // Each hub once in its interval.
      rate: hubs,
      timeUnit: `${number('INTERVAL_SECONDS', 15)}s`,
      preAllocatedVUs: Math.min(hubs, 50),
      maxVUs: hubs,
      duration,
    },
    people: { executor: 'constant-vus', exec: 'look', vus: number('DASHBOARDS', 20), duration },
  },
  thresholds: {
    pushes_lost: ['count==0'],
    // The fleet must keep its pace: a push that finds no free VU was not sent.
    dropped_iterations: ['count==0'],
    'http_req_duration{kind:push}': ['p(95)<500', 'p(99)<2000'],
    'http_req_duration{kind:read}': ['p(95)<1000', 'p(99)<3000'],
    'http_req_failed{kind:push}': ['rate<0.01'],
    'http_req_failed{kind:read}': ['rate<0.01'],
    checks: ['rate>0.99'],
  },
};

export function setup() {
  return newRun();
}

export function report({ run }) {
  // In turn, so that one hub's samples are in order.
  push(run, exec.scenario.iterationInTest % hubs, Date.now());
}

export function look() {
  dashboard(__VU, number('PANELS', 12), 1);
  if (Math.random() < 0.2) alerts(__VU);
  sleep(number('REFRESH_SECONDS', 15) * (0.8 + 0.4 * Math.random()));
}
