// What the scenarios share: who calls, what they send, and what counts as lost.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { SharedArray } from 'k6/data';
import { Counter } from 'k6/metrics';

export const url = required('MTP_URL').replace(/\/$/, '');
const deviceKeys = new SharedArray('device keys', () => lines('MTP_DEVICE_KEYS'));
const readers = new SharedArray('readers', () => lines('MTP_READERS'));

// A push that was refused for good: a sender drops its samples.
export const lost = new Counter('pushes_lost');
// A push that has to be sent again.
export const repeated = new Counter('pushes_repeated');

const series = number('SERIES', 50);

function required(name) {
  if (!__ENV[name]) throw new Error(`${name} is not set; see loadtest/README.md`);
  return __ENV[name];
}

// The lines of the file that a variable names. Credentials do not belong on the command line.
function lines(name) {
  const found = open(required(name)).split('\n').map((line) => line.trim()).filter((line) => line !== '');
  if (found.length === 0) throw new Error(`${name}: the file is empty`);
  return found;
}

export function number(name, otherwise) {
  const value = Number(__ENV[name] || otherwise);
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name} must be a number, not ${__ENV[name]}`);
  return value;
}

export function text(name, otherwise) {
  return __ENV[name] || otherwise;
}

// Series of this run only, so that a repeated run does not send samples that are too old.
export function newRun() {
  return { run: `k6-${Date.now()}` };
}

function headers(credential, more) {
  return Object.assign({ Authorization: `Bearer ${credential}` }, more);
}

// One export of a hub: a value of each of its series at one time. OTLP as JSON, because k6 has no snappy.
function payload(run, hub, milliseconds) {
  const time = `${milliseconds}000000`;
  const point = (at) => ({
    asDouble: 20 + Math.sin(milliseconds / 60000 + at),
    timeUnixNano: time,
    attributes: [{ key: 'sensor', value: { stringValue: `${at}` } }],
  });
  const attribute = (key, value) => ({ key, value: { stringValue: value } });
  return JSON.stringify({
    resourceMetrics: [{
      resource: { attributes: [attribute('service.name', run), attribute('service.instance.id', `hub-${hub}`)] },
      scopeMetrics: [{
        metrics: [{
          name: 'k6_hub_value',
          gauge: { dataPoints: Array.from({ length: series }, (_, at) => point(at)) },
        }],
      }],
    }],
  });
}

// Sends one export as a collector does: again after a 429 or 5xx, when the proxy says; never after another 4xx.
export function push(run, hub, milliseconds) {
  const body = payload(run, hub, milliseconds);
  const key = deviceKeys[hub % deviceKeys.length];
  for (let attempt = 0; ; attempt += 1) {
    const answer = http.post(`${url}/otlp/v1/metrics`, body, {
      headers: headers(key, { 'Content-Type': 'application/json' }),
      tags: { kind: 'push', name: 'push' },
    });
    if (answer.status >= 200 && answer.status < 300) return true;
    if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) {
      lost.add(1);
      console.error(`hub ${hub}: ${answer.status} ${answer.body}`);
      return false;
    }
    repeated.add(1);
    // No answer, or one that says when.
    sleep(Number(answer.headers['Retry-After'] || Math.min(2 ** attempt, 30)) * (1 + Math.random() / 4));
  }
}

// The panels of a dashboard, as a browser asks for them: all at once over a few connections.
export function dashboard(person, panels, hours) {
  const end = Math.floor(Date.now() / 1000);
  const query = (panel) => {
    const expression = panel % 2 === 0
      ? `avg(k6_hub_value{sensor="${panel}"})`
      : `quantile by (job) (0.9, rate(k6_hub_value{sensor="${panel}"}[5m]))`;
    const range = `start=${end - hours * 3600}&end=${end}&step=${Math.max(15, hours * 12)}`;
    return {
      method: 'GET',
      url: `${url}/prometheus/api/v1/query_range?query=${encodeURIComponent(expression)}&${range}`,
      params: read(person),
    };
  };
  const answers = http.batch(Array.from({ length: panels }, (_, panel) => query(panel)));
  check(answers, { 'every panel has data or says that there is none': (all) => all.every((one) => one.status === 200) });
}

// What the page of alerts and rules asks for.
export function alerts(person) {
  const answer = http.get(`${url}/prometheus/api/v1/rules`, read(person));
  check(answer, { 'the rules are listed': (one) => one.status === 200 });
}

function read(person) {
  return { headers: headers(readers[person % readers.length]), tags: { kind: 'read', name: 'read' } };
}
