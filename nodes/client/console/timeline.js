// What has happened in the last minute, as the feed tells of it. Times are milliseconds by the log's clock.

export const KEPT_MS = 60_000;
const WRITES_MAX = 6000;
const READS_MAX = 3000;

export class Timeline {
  constructor(now = () => performance.now()) {
    this._now = now;
    this._offset = null;
    this.began = null;
    this.writes = new Map(); // by position
    this.list = []; // the same, in log order
    this.delays = {}; // by replica, in milliseconds: one object for all writes until a delay is changed
    this.reads = [];
    this.replicas = new Map(); // by id: its state a second ago at the most
    this.away = new Map(); // by node: what was wrong when it did not answer
    this.head = null;
    this.missed = false;
  }

  // The log's clock now, once a message has told it.
  now() {
    return this._offset === null ? null : this._now() + this._offset;
  }

  take(message) {
    const offset = message.now_ms - this._now();
    // A message is late by its way here, never early: the largest offset is the nearest to the truth.
    this.began ??= message.now_ms;
    this._offset = this._offset === null || Math.abs(offset - this._offset) > 1000 ? offset : Math.max(offset, this._offset);
    for (const write of message.writes ?? []) this._write(write);
    for (const applied of message.applied ?? []) this._applied(applied);
    for (const read of message.reads ?? []) this.reads.push(read);
    if (message.state) {
      const registered = new Set(message.state.map((state) => state.replica_id));
      for (const name of this.replicas.keys()) if (!registered.has(name)) this.replicas.delete(name);
    }
    for (const state of message.state ?? []) {
      this.replicas.set(state.replica_id, state);
      this._delay(state);
      this.away.delete("primary");
      if (state.live) this.away.delete(state.replica_id);
    }
    for (const { node, detail } of message.unreachable ?? []) this.away.set(node, detail);
    this._forget();
  }

  _write(write) {
    const [epoch, version] = write.position.split("-").map(Number);
    this.head = { epoch, version, at_ms: write.at_ms };
    const known = this.writes.get(write.position);
    if (known) Object.assign(known, write);
    else this._remember({ ...write, epoch, version });
  }

  _applied(applied) {
    if (!this.writes.has(applied.position)) {
      // It was written before this page listened, or its message is still to come: applied minus how long it took.
      const [epoch, version] = applied.position.split("-").map(Number);
      const at_ms = applied.applied_ms - applied.applied_after_ms;
      this._remember({ position: applied.position, op: "set", key: "", value: "", at_ms, epoch, version });
    }
    this.writes.get(applied.position).applied.set(applied.replica, applied.applied_ms);
  }

  _remember(write) {
    Object.assign(write, { applied: new Map(), delays: this.delays });
    this.writes.set(write.position, write);
    this.list.push(write);
  }

  _delay(state) {
    if (this.delays[state.replica_id] !== state.delay_ms) {
      this.delays = { ...this.delays, [state.replica_id]: state.delay_ms };
    }
  }

  _forget() {
    const oldest = this.now() - KEPT_MS;
    const gone = this.list.findIndex((write, index) => this.list.length - index <= WRITES_MAX && write.at_ms >= oldest);
    for (const write of this.list.splice(0, gone < 0 ? this.list.length : gone)) this.writes.delete(write.position);
    while (this.reads.length > READS_MAX || (this.reads.length && this.reads[0].at_ms < oldest)) this.reads.shift();
  }

  // Whether a replica has a write, as far as anything here says so.
  has(name, write) {
    const [epoch, version] = (this.replicas.get(name)?.applied_position ?? "0-0").split("-").map(Number);
    return write.applied.has(name) || epoch > write.epoch || (epoch === write.epoch && version >= write.version);
  }

  names() {
    return [...this.replicas.keys()].sort();
  }

  // For each write that every replica has: commit to the last apply, in milliseconds.
  windows() {
    const names = this.names();
    const found = [];
    for (const write of this.list) {
      if (write.op === "epoch" || !names.length || !names.every((name) => write.applied.has(name))) continue;
      found.push(Math.max(...names.map((name) => write.applied.get(name))) - write.at_ms);
    }
    return found;
  }

  // How long each apply took from its commit, in milliseconds, shortest first.
  delaysSeen() {
    const took = [];
    for (const write of this.list) {
      if (write.op !== "epoch") for (const at of write.applied.values()) took.push(at - write.at_ms);
    }
    return took.sort((a, b) => a - b);
  }

  // Writes a second over the last minute, or since this page listens.
  writesPerSecond() {
    const seconds = Math.min(KEPT_MS, this.now() - this.began) / 1000;
    const since = this.now() - KEPT_MS;
    return seconds > 0 ? this.list.filter((write) => write.op !== "epoch" && write.at_ms >= since).length / seconds : 0;
  }
}

// [t, share of what took longer than t] at so many t from 0 to until.
export function stale(took, until, points) {
  let passed = 0;
  return Array.from({ length: points }, (_, step) => {
    const t = (until * step) / (points - 1);
    while (passed < took.length && took[passed] <= t) passed += 1;
    return [t, took.length ? 1 - passed / took.length : null];
  });
}

// Between two values it is interpolated, as broker/stats.py does; a test compares the two.
export function quantile(sorted, share) {
  if (!sorted.length) return null;
  const place = share * (sorted.length - 1);
  const below = sorted[Math.floor(place)];
  return below + (place % 1) * (sorted[Math.ceil(place)] - below);
}
