// What has happened in the last minute, as the feed tells of it. Times are milliseconds by the log's clock.

export const KEPT_MS = 60_000;
const WRITES_MAX = 6000;
const READS_MAX = 3000;

export class Timeline {
  constructor(now = () => performance.now()) {
    this._now = now;
    this._offset = null;
    this.writes = new Map(); // by position, in log order
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
    this._offset = this._offset === null || Math.abs(offset - this._offset) > 1000 ? offset : Math.max(offset, this._offset);
    for (const write of message.writes ?? []) this._write(write);
    for (const applied of message.applied ?? []) this._applied(applied);
    for (const read of message.reads ?? []) this.reads.push(read);
    for (const state of message.state ?? []) {
      this.replicas.set(state.replica_id, state);
      this.away.delete("primary");
      if (state.live) this.away.delete(state.replica_id);
    }
    for (const { node, detail } of message.unreachable ?? []) this.away.set(node, detail);
    this._forget();
  }

  _write(write) {
    const [epoch, version] = write.position.split("-").map(Number);
    this.head = { epoch, version, at_ms: write.at_ms };
    if (write.op === "epoch") {
      this.writes.set(write.position, { ...write, epoch, version, applied: new Map() });
      return;
    }
    const known = this.writes.get(write.position);
    this.writes.set(write.position, { ...write, epoch, version, applied: known?.applied ?? new Map() });
  }

  _applied(applied) {
    const write = this.writes.get(applied.position);
    if (write) {
      write.applied.set(applied.replica, applied.applied_ms);
      return;
    }
    // It was written before this page listened, or its message is still to come: applied minus how long it took.
    const [epoch, version] = applied.position.split("-").map(Number);
    const at_ms = applied.applied_ms - applied.applied_after_ms;
    const write_ = { position: applied.position, op: "set", key: "", value: "", at_ms, epoch, version, applied: new Map() };
    write_.applied.set(applied.replica, applied.applied_ms);
    this.writes.set(applied.position, write_);
  }

  _forget() {
    const oldest = this.now() - KEPT_MS;
    for (const [position, write] of this.writes) {
      if (this.writes.size <= WRITES_MAX && write.at_ms >= oldest) break;
      this.writes.delete(position);
    }
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
    for (const write of this.writes.values()) {
      if (write.op === "epoch" || !names.length || !names.every((name) => write.applied.has(name))) continue;
      found.push(Math.max(...names.map((name) => write.applied.get(name))) - write.at_ms);
    }
    return found;
  }

  // [t, share of pairs of write and replica in which the replica did not have the write t after it], t in milliseconds.
  stale(points = 41) {
    const took = [];
    for (const write of this.writes.values()) {
      if (write.op !== "epoch") for (const at of write.applied.values()) took.push(at - write.at_ms);
    }
    if (!took.length) return [];
    took.sort((a, b) => a - b);
    const last = took[took.length - 1] * 1.05;
    return Array.from({ length: points }, (_, step) => {
      const t = (last * step) / (points - 1);
      return [t, took.filter((one) => one > t).length / took.length];
    });
  }
}

export function quantile(sorted, q) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null;
}
