// How long writes took to reach the replicas, as far as the feed shows it. An observation ends when the entry is applied
// (`ended`), or is cut off (`censored`) at the time up to which the replica is known to lack it: not at the present,
// because reports are on their way, and not later than its reports or its epoch. Durations are in milliseconds.

export const KEPT_MS = 60_000;
const START = { epoch: 0, version: 0 };

// Whether `one` is at or after `other`.
export const reached = (one, other) => one.epoch > other.epoch || (one.epoch === other.epoch && one.version >= other.version);

// What is known of one replica.
export class Knowledge {
  // `since`: earlier writes do not count, because the replica did not exist.
  constructor(since) {
    this.since = since;
    this._horizon = -Infinity; // every apply up to this time has been reported, or its entry is in `_lost`
    this._heard = { ...START, at: -Infinity }; // the position in the last heartbeat
    this.heartbeats = []; // of the last minute, as `_heard`
    this._passed = START; // the position up to which lost reports have been looked for
    this._lost = new WeakMap(); // by write: when the replica was last known to lack it, though it has applied it since
  }

  // A report of an entry that was just applied. In log order, entries before it have been applied as well.
  applied(write, at, inOrder, list, name) {
    if (inOrder) this._pass(write, list, name);
    this._horizon = Math.max(this._horizon, at);
  }

  // A heartbeat says which entries the replica lacked at its time. That counts at the next one, when the reports of the
  // entries applied before it have arrived, unless they have been lost.
  heard(position, at, list, name) {
    if (at <= this._heard.at) return;
    this._pass(this._heard, list, name);
    this._horizon = Math.max(this._horizon, this._heard.at);
    this._heard = { ...position, at };
    this.heartbeats = [...this.heartbeats.filter((heartbeat) => heartbeat.at > at - KEPT_MS), this._heard];
  }

  _pass(position, list, name) {
    for (let index = list.length - 1; index >= 0; index -= 1) {
      const write = list[index];
      if (reached(this._passed, write)) break;
      if (reached(position, write) && !write.applied.has(name)) this._lost.set(write, this._horizon);
    }
    if (reached(position, this._passed)) this._passed = position;
  }

  // When the replica was last known to lack a write whose apply is not reported; -Infinity if that is not known.
  lackedAt(write) {
    return this._lost.get(write) ?? (reached(this._passed, write) ? -Infinity : this._horizon);
  }

  // Whether the replica has applied a write at a time that is not reported, as far as its heartbeats say.
  has(write) {
    return reached(this._passed, write) || reached(this._heard, write);
  }

  // The time of the newest report.
  get newest() {
    return Math.max(this._horizon, this._heard.at);
  }
}

// Commit to apply, by replica. Only writes that the feed showed from their commit on count: others are known because
// they were applied, and would make every delay look short.
export function delays(list, known) {
  const found = new Map([...known.keys()].map((name) => [name, { ended: [], censored: [] }]));
  for (const { write, end } of whole(list)) {
    for (const [name, knowledge] of known) {
      if (write.at_ms >= knowledge.since) add(found.get(name), observe(write, name, knowledge, end));
    }
  }
  return found;
}

// Commit to the last apply on the replicas that existed at the commit. `onTheirWay`: how many writes a replica still lacks.
export function windows(list, known) {
  const found = { ended: [], censored: [], onTheirWay: 0 };
  for (const { write, end } of whole(list)) {
    const parts = [...known].filter(([, { since }]) => write.at_ms >= since).map(([name, knowledge]) => observe(write, name, knowledge, end));
    if (!parts.length) continue;
    const missing = parts.filter(({ over }) => !over);
    add(found, { over: !missing.length, ms: Math.max(...(missing.length ? missing : parts).map(({ ms }) => ms)) });
    if (missing.some(({ onItsWay }) => onItsWay)) found.onTheirWay += 1;
  }
  return found;
}

// A write's way to one replica; `end` is that of its epoch.
function observe(write, name, knowledge, end) {
  const at = write.applied.get(name);
  if (at <= end) return { over: true, ms: Math.max(0, at - write.at_ms) };
  const lacked = at === undefined ? knowledge.lackedAt(write) : end;
  return { over: false, ms: Math.min(lacked, end) - write.at_ms, onItsWay: end === Infinity && !knowledge.has(write) };
}

function add({ ended, censored }, { over, ms }) {
  if (over) ended.push(ms);
  else if (ms > 0) censored.push(ms);
}

// Writes that were seen from their commit on, each with the end of its epoch.
function* whole(list) {
  let end = Infinity;
  for (let index = list.length - 1; index >= 0; index -= 1) {
    const write = list[index];
    if (list[index + 1]?.epoch > write.epoch) end = list[index + 1].at_ms;
    if (write.seen && !write.earlier && write.op !== "epoch") yield { write, end };
  }
}
