// Measure the consistency window and stale reads under a steady load.
//
//   docker compose run --rm lab14-k6 run /scripts/read-consistency.js
//   k6 run k6/read-consistency.js                                        (with `lab up` running)
//
// The load is open: iterations start at a constant rate regardless of their duration; a dropped iteration is a failure.
//   writers   write, then wait for the write's position on every replica in parallel: the consistency window
//   readers   read a key from the primary, then from a replica: stale if the replica's version is older
//   sessions  write, then read the same key from a replica with the write's position as token: must not be older
import http from 'k6/http';
import exec from 'k6/execution';
import { Counter, Rate, Trend } from 'k6/metrics';

const PRIMARY = __ENV.BASE_PRIMARY || 'http://127.0.0.1:8000';
const DURATION = __ENV.DURATION || '30s';
const WRITE_RATE = wholeNumber('WRITE_RATE', 20); // windows per second
const READ_RATE = wholeNumber('READ_RATE', 50); // pairs of reads per second
const SESSION_RATE = wholeNumber('SESSION_RATE', 5); // writes, each followed by a read of that write, per second
const DELAYS_MS = (__ENV.DELAYS_MS || '500,1500').split(',').map(Number); // the last one applies to all remaining replicas
const MARGIN_MS = wholeNumber('MARGIN_MS', 250); // how far a window can exceed the longest delay
const KEYS = wholeNumber('KEYS', 100);
const SUMMARY_JSON = __ENV.SUMMARY_JSON || 'read-consistency.json';

if (!DELAYS_MS.every((ms) => ms >= 0)) throw new Error(`DELAYS_MS is '${__ENV.DELAYS_MS}', but must be a list like 500,1500`);
const LONGEST_MS = Math.max(...DELAYS_MS);
const WAIT_MS = LONGEST_MS + MARGIN_MS + 2000; // a longer window times out and is recorded with this length
const ADMIN = __ENV.LAB_ADMIN_TOKEN ? { Authorization: `Bearer ${__ENV.LAB_ADMIN_TOKEN}` } : {};

const windowMs = new Trend('window_ms');
const windowTimeouts = new Counter('window_timeouts');
const staleReads = new Rate('stale_reads');
const sessionTimeouts = new Counter('session_timeouts');
const violations = new Counter('read_your_writes_violations');

function scenario(name, rate, busyMs) {
  const preAllocatedVUs = Math.ceil((rate * busyMs) / 1000) + 10;
  return { executor: 'constant-arrival-rate', exec: name, rate, timeUnit: '1s', duration: DURATION, preAllocatedVUs };
}

export const options = {
  scenarios: {
    writers: scenario('writers', WRITE_RATE, WAIT_MS),
    readers: scenario('readers', READ_RATE, 500),
    sessions: scenario('sessions', SESSION_RATE, WAIT_MS),
  },
  thresholds: {
    http_req_failed: ['rate==0'],
    dropped_iterations: ['count==0'],
    window_ms: [`p(95)<=${LONGEST_MS + MARGIN_MS}`],
    read_your_writes_violations: ['count==0'],
  },
  summaryTrendStats: ['min', 'med', 'avg', 'p(50)', 'p(90)', 'p(95)', 'p(99)', 'max', 'count'],
};

// Set the delays and pass the previous ones to teardown.
export function setup() {
  const replicas = succeeded(http.get(`${PRIMARY}/replicas`)).replicas;
  if (replicas.length === 0) exec.test.abort('no replica is registered');
  const before = succeeded(http.get(`${PRIMARY}/admin/replication-delays`, { headers: ADMIN })).models;
  replicas.forEach((replica, i) => {
    const delay_ms = DELAYS_MS[Math.min(i, DELAYS_MS.length - 1)];
    configure({ replica: replica.replica_id, delay_ms });
  });
  return { urls: replicas.map((replica) => replica.url), before };
}

export function teardown({ before }) {
  Object.entries(before).forEach(([replica_url, model]) => configure({ replica_url, model }));
}

export function writers({ urls }) {
  const position = write().position;
  if (position === undefined) return;
  const acknowledged = Date.now();
  const waits = http.batch(
    urls.map((url) => ({
      method: 'GET',
      url: `${url}/version?min_position=${position}&timeout_ms=${WAIT_MS}`,
      params: { tags: { name: 'wait for a position' }, timeout: WAIT_MS + 5000 },
    })),
  );
  if (waits.every((wait) => wait.status === 200 && wait.json('reached'))) {
    windowMs.add(Date.now() - acknowledged);
  } else {
    windowTimeouts.add(1);
    windowMs.add(WAIT_MS);
  }
}

export function readers({ urls }) {
  const key = randomKey();
  const params = { tags: { name: 'read a key' }, responseCallback: http.expectedStatuses(200, 404), timeout: 2000 };
  const newest = http.get(`${PRIMARY}/data/${key}`, params);
  const found = http.get(`${randomItem(urls)}/data/${key}`, params);
  if (newest.status !== 200) return; // not written yet, so a replica cannot be stale
  if (found.status === 200 || found.status === 404) {
    staleReads.add(found.status === 404 || found.json('version') < newest.json('version'));
  }
}

export function sessions({ urls }) {
  const written = write();
  if (written.position === undefined) return;
  const params = {
    tags: { name: 'read your write' },
    responseCallback: http.expectedStatuses(200, 504),
    timeout: WAIT_MS + 5000,
  };
  const url = `${randomItem(urls)}/data/${written.key}?min_position=${written.position}&timeout_ms=${WAIT_MS}`;
  const found = http.get(url, params);
  if (found.status === 504) sessionTimeouts.add(1); // a timeout, but no stale read
  if (found.status === 200 && found.json('version') < written.version) violations.add(1);
}

function write() {
  const body = JSON.stringify({ key: randomKey(), value: exec.scenario.iterationInTest });
  const done = http.post(`${PRIMARY}/data`, body, { tags: { name: 'write' } });
  return done.status === 200 ? done.json() : {};
}

function configure(body) {
  succeeded(http.post(`${PRIMARY}/admin/replication-delay`, JSON.stringify(body), { headers: ADMIN }));
}

function succeeded(response) {
  if (response.status !== 200) exec.test.abort(`${response.url}: ${response.error || response.body}`);
  return response.json();
}

function randomKey() {
  return `k6-${Math.floor(Math.random() * KEYS)}`;
}

function randomItem(list) {
  return list[Math.floor(Math.random() * list.length)];
}

function wholeNumber(name, fallback) {
  const value = __ENV[name] === undefined ? fallback : Number(__ENV[name]);
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`${name} is '${__ENV[name]}', but must be a whole number of at least 1`);
  }
  return value;
}

export function handleSummary({ metrics, state }) {
  const value = (metric, name) => (metrics[metric] ? metrics[metric].values[name] : 0) || 0;
  const ms = (milliseconds) => `${milliseconds.toFixed(1)} ms`.padStart(11);
  const spread = (metric) => ['p(50)', 'p(95)', 'p(99)', 'max'].map((name) => ms(value(metric, name))).join(' ');
  const verdicts = Object.entries(metrics).flatMap(([metric, found]) =>
    Object.entries(found.thresholds || {}).map(([rule, { ok }]) => `  ${ok ? 'held  ' : 'BROKEN'}  ${metric} ${rule}`),
  );
  const lines = [
    '',
    `delays ${DELAYS_MS.join(', ')} ms; ${(state.testRunDurationMs / 1000).toFixed(0)} s including setup and teardown`,
    `                        ${['p50', 'p95', 'p99', 'max'].map((name) => name.padStart(11)).join(' ')}`,
    `  consistency window    ${spread('window_ms')}   of ${value('window_ms', 'count')}`,
    `  request               ${spread('http_req_duration')}   of ${value('http_reqs', 'count')}`,
    `  windows timed out     ${value('window_timeouts', 'count')}`,
    `  stale reads           ${(100 * value('stale_reads', 'rate')).toFixed(1)} %`,
    `  sessions timed out    ${value('session_timeouts', 'count')}`,
    '',
    ...verdicts,
    '',
  ];
  return { stdout: lines.join('\n'), [SUMMARY_JSON]: JSON.stringify({ metrics, state }, null, 2) };
}
