// The events of the last minute, from the feed. Times are milliseconds by the log server's clock.

import { KEPT_MS, Knowledge, delays, reached, windows } from "./observations.js";

const WRITES_MAX = 6000;
const READS_MAX = 3000;
const OLDER_MAX = 100;
const BREAKS_MAX = 20;
const PROGRESS = ["applied", "acknowledged"]; // what a replica does with an entry, in this order
const ORIGIN = /^"(\d{1,15}-\d{1,15})"$/; // in the value of the entry that starts an epoch
const BREAKS = new Set(["epoch", "lost"]);

export function parsePosition(position) {
  const [epoch, version] = position.split("-").map(Number);
  return { epoch, version };
}

export { reached };

function lose({ epoch, origin, at_ms }, write) {
  if (write.epoch < epoch && !reached(origin, write)) write.lost_ms = Math.min(at_ms, write.lost_ms ?? Infinity);
}

export class Timeline {
  // `clock`: milliseconds from any origin.
  constructor(clock = () => performance.now()) {
    this._clock = clock;
    this._offset = null;
    this.started = null;
    this.writes = new Map(); // by position
    this.list = []; // the same writes in log order
    this.delays = {}; // by replica, in milliseconds; shared by all writes until a delay changes
    this.reads = [];
    this.replicas = new Map(); // by id: the latest reported state, at most a second old
    this._known = new Map(); // by id: what its reports say of the entries on their way to it
    this.unreachable = new Map(); // by node: the error of the last request
    this.log = null; // the name of the stream
    this._groups = new Map(); // by id: the last delivered positions of the last minute, each with its time, in that order
    this._stateMs = -Infinity; // when the latest states were reported
    this.head = null;
    this.older = []; // the newest writes from before those in the list, in log order
    this._starts = []; // of the epochs that go on from an earlier one: { epoch, origin, at_ms }
    this.breaks = []; // the events on them: "epoch" and "lost"
  }

  // Null until the first message.
  now() {
    return this._offset === null ? null : this._clock() + this._offset;
  }

  take(message) {
    const offset = message.now_ms - this._clock();
    // Transit can only delay a message, so the largest offset is the most accurate.
    this.started ??= message.now_ms;
    this._offset = this._offset === null || Math.abs(offset - this._offset) > 1000 ? offset : Math.max(offset, this._offset);
    this.log = message.log ?? this.log;
    for (const group of message.groups ?? []) this._delivered(group);
    for (const write of message.earlier ?? []) this._earlier(write);
    for (const write of message.writes ?? []) this._write(write);
    for (const kind of PROGRESS) for (const item of message[kind] ?? []) this._progress(kind, item);
    this._learn(message.applied ?? []);
    this.reads.push(...(message.reads ?? []));
    this.breaks.push(...(message.events ?? []).filter(({ kind }) => BREAKS.has(kind)));
    this.breaks.splice(0, this.breaks.length - BREAKS_MAX);
    if (message.state) {
      this._stateMs = message.now_ms;
      this._state(message.state);
    }
    for (const { node, detail } of message.unreachable ?? []) this.unreachable.set(node, detail);
    this._forget();
  }

  _write(write) {
    const { epoch, version } = parsePosition(write.position);
    this.head = { epoch, version };
    const known = this.writes.get(write.position);
    if (known) Object.assign(known, write, { seen: true, earlier: false });
    else this._remember({ ...write, epoch, version, seen: true });
    this._continue({ ...write, epoch });
  }

  // An entry from before the page was opened: when it was applied may not be known, so it is not observed.
  _earlier(write) {
    if (this.writes.has(write.position)) return;
    const { epoch, version } = parsePosition(write.position);
    if (!this.head || reached({ epoch, version }, this.head)) this.head = { epoch, version };
    this._remember({ ...write, epoch, version, seen: true, earlier: true });
    this._continue({ ...write, epoch });
  }

  _progress(kind, { position, replica, [`${kind}_ms`]: at, [`${kind}_after_ms`]: after }) {
    if (!this.writes.has(position)) {
      // The write predates this page, or its message has not arrived yet.
      this._remember({ position, op: "set", key: "", value: "", at_ms: at - after, ...parsePosition(position) });
    }
    this.writes.get(position)[kind].set(replica, at);
  }

  _remember(write) {
    Object.assign(write, { applied: new Map(), acknowledged: new Map(), delays: this.delays });
    this.writes.set(write.position, write);
    this.list.splice(this.list.findLastIndex((other) => reached(write, other)) + 1, 0, write);
    for (const start of this._starts) lose(start, write);
  }

  // An epoch that goes on from an earlier one: entries after its origin are no longer in the log.
  _continue({ op, value, epoch, at_ms }) {
    const origin = op === "epoch" ? ORIGIN.exec(value)?.[1] : null; // a reset has none
    if (!origin) return;
    const start = { epoch, origin: parsePosition(origin), at_ms };
    this._starts.push(start);
    this._starts.splice(0, this._starts.length - BREAKS_MAX);
    for (const write of [...this.older, ...this.list]) lose(start, write);
  }

  // The epoch that goes on after this position's, once it is known: { epoch, origin, at_ms }.
  continued({ epoch }) {
    return this._starts.find((start) => start.epoch > epoch);
  }

  // What a replica applied last says which entries it lacked until then.
  _learn(applied) {
    for (const { position, replica: name, applied_ms: at } of new Map(applied.map((item) => [item.replica, item])).values()) {
      const inOrder = this.replicas.get(name)?.order === "log";
      this._knowledge(name, -Infinity).applied(this.writes.get(position), at, inOrder, this.list, name);
    }
  }

  _knowledge(name, since) {
    if (!this._known.has(name)) this._known.set(name, new Knowledge(since));
    return this._known.get(name);
  }

  _state(states) {
    const registered = new Set(states.map((state) => state.replica_id));
    const first = !this.replicas.size; // these replicas existed before the page was opened
    for (const name of this.replicas.keys()) if (!registered.has(name)) this.replicas.delete(name);
    for (const state of states) {
      const { replica_id: name, delay_ms: delay } = state;
      this.replicas.set(name, state);
      const heard = Date.parse(state.heartbeat_at);
      this._knowledge(name, first ? -Infinity : heard).heard(parsePosition(state.applied_position), heard, this.list, name);
      if (this.delays[name] !== delay) this.delays = { ...this.delays, [name]: delay };
      this.unreachable.delete("primary");
      if (state.live) this.unreachable.delete(name);
    }
  }

  _delivered({ replica: name, delivered: position, at_ms }) {
    const kept = this._groups.get(name) ?? [];
    kept.push({ position, at_ms });
    while (kept.length > 1 && kept[1].at_ms < at_ms - KEPT_MS) kept.shift();
    this._groups.set(name, kept);
  }

  // The position last delivered to a replica, with the time at which the log was asked; null if unknown.
  delivered(name) {
    return this._groups.get(name)?.at(-1) ?? null;
  }

  // The last such answer at or before a time, and the first one after it.
  deliveredAround(name, end) {
    const kept = this._groups.get(name) ?? [];
    const last = kept.findLastIndex(({ at_ms: at }) => at <= end);
    return { before: kept[last], after: kept[last + 1] };
  }

  _forget() {
    const oldest = this.now() - KEPT_MS;
    const kept = this.list.findIndex((write, index) => this.list.length - index <= WRITES_MAX && write.at_ms >= oldest);
    const aged = this.list.splice(0, kept < 0 ? this.list.length : kept);
    this.older.push(...aged.filter(({ seen }) => seen));
    const gone = [...aged.filter(({ seen }) => !seen), ...this.older.splice(0, this.older.length - OLDER_MAX)];
    for (const { position } of gone) this.writes.delete(position);
    while (this.reads.length > READS_MAX || (this.reads.length && this.reads[0].at_ms < oldest)) this.reads.shift();
  }

  // Whether a replica is known to have applied or acknowledged a write. A later epoch says nothing about a lost one.
  has(name, write, kind = "applied") {
    return write[kind].has(name) || (write.lost_ms === undefined && reached(this._reported(name, kind), write));
  }

  // The time at which `has` and `replicas` are known, apart from each write's own times.
  get reportedAt() {
    return this._stateMs;
  }

  // The position that a replica has last reported for a kind of progress, at most a second old.
  _reported(name, kind) {
    const { applied_position: applied = "0-0", acknowledged_version: version } = this.replicas.get(name) ?? {};
    const position = parsePosition(applied);
    return kind === "applied" ? position : { epoch: position.epoch, version: version ?? 0 };
  }

  // The version up to which a replica has acknowledged every entry; null if unknown.
  acknowledgedVersion(name) {
    if (this.replicas.get(name)?.acknowledged_version == null) return null;
    let { epoch, version } = this._reported(name, "acknowledged");
    while (this.writes.get(`${epoch}-${version + 1}`)?.acknowledged.has(name)) version += 1;
    return version;
  }

  names() {
    return [...this.replicas.keys()].sort();
  }

  // How long each write took to reach every replica: see observations.js.
  windows() {
    return windows(this.list, this._registered());
  }

  // How long the writes took to reach each replica.
  delaysSeen() {
    return delays(this.list, this._registered());
  }

  // What the replica's reports say; see observations.js.
  knowledge(name) {
    return this._known.get(name);
  }

  // The time after which a node's state is unknown; Infinity while its reports arrive.
  knownUntil(name) {
    const silent = this.unreachable.has(name) || this.replicas.get(name)?.live === false;
    return silent && this._known.has(name) ? this._known.get(name).newest : Infinity;
  }

  _registered() {
    return new Map(this.names().map((name) => [name, this._known.get(name)]));
  }

  // Averaged over the last minute, or since the page was opened.
  writesPerSecond() {
    const seconds = Math.min(KEPT_MS, this.now() - this.started) / 1000;
    const since = Math.max(this.started, this.now() - KEPT_MS);
    return seconds > 0 ? this._changes().filter((write) => write.at_ms >= since).length / seconds : 0;
  }

  // Writes without the epoch entries.
  _changes() {
    return this.list.filter((write) => write.op !== "epoch");
  }
}
