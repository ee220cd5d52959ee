// The messages of the feed as they were received, and how they are shown again.

import { KEPT_MS } from "./observations.js";
import { parsePosition, Timeline } from "./timeline.js";

const KEPT_MAX = 1200; // messages; the feed sends at most ten a second
const KEPT_CHARACTERS_MAX = 16 * 2 ** 20;
const FILE_MESSAGES_MAX = 100_000;
export const FILE_BYTES_MAX = 64 * 2 ** 20;

// The last minute, preceded by the newest older message with the replicas' state, so that it can be shown on its own.
export class Recording {
  constructor() {
    this.items = []; // { text, message }
    this._characters = 0;
  }

  add(text, message = JSON.parse(text)) {
    this.items.push({ text, message });
    this._characters += text.length;
    while (this._isOver()) this._characters -= this.items.shift().text.length;
  }

  // Whether the first message can go: the minute is complete without it, or the bounds are exceeded.
  _isOver() {
    if (this.items.length > KEPT_MAX || (this._characters > KEPT_CHARACTERS_MAX && this.items.length > 1)) return true;
    const oldest = this.items.at(-1).message.now_ms - KEPT_MS;
    const inside = this.items.findIndex(({ message }) => message.now_ms >= oldest);
    return this.items.slice(1, inside).some(({ message }) => message.state);
  }

  // By the log server's clock; null without messages.
  get start() {
    return this.items[0]?.message.now_ms ?? null;
  }

  get end() {
    return this.items.at(-1)?.message.now_ms ?? null;
  }

  upTo(at) {
    const found = new Recording();
    found.items = this.items.filter(({ message }) => message.now_ms <= at);
    found._characters = found.items.reduce((sum, { text }) => sum + text.length, 0);
    return found;
  }

  // The messages up to a time, and a last one that has only this time: where the recording ends.
  endingAt(at) {
    const found = this.upTo(at);
    const message = { now_ms: at };
    if (found.end !== at) found.items.push({ text: JSON.stringify(message), message });
    return found;
  }

  toLines() {
    return this.items.map(({ text }) => `${text}\n`).join("");
  }

  // Raises an error that names the line. Nothing is left out: the bounds are those of a file.
  static fromLines(text) {
    const found = new Recording();
    for (const [index, line] of text.replace(/^\uFEFF/, "").split("\n").entries()) {
      if (!line.trim()) continue;
      const number = index + 1;
      if (found.items.length === FILE_MESSAGES_MAX) throw new Error(`line ${number}: more than ${FILE_MESSAGES_MAX} messages`);
      found.items.push({ text: line.trim(), message: parsed(line, number) });
    }
    if (!found.items.length) throw new Error("no message in it");
    return found;
  }
}

function parsed(line, number) {
  let message;
  try {
    message = JSON.parse(line);
  } catch {
    throw new Error(`line ${number}: not JSON`);
  }
  const wrong = fault(message);
  if (wrong) throw new Error(`line ${number}: not a message of the event feed: ${wrong}`);
  return message;
}

const isNumber = Number.isFinite;
const isKnownNumber = (value) => value == null || isNumber(value);
const isText = (value) => typeof value === "string";
const isPosition = (value) => isText(value) && value.length < 40 && Object.values(parsePosition(value)).every(Number.isInteger);
const PROGRESS = (kind) => ({ replica: isText, position: isPosition, [`${kind}_ms`]: isNumber, [`${kind}_after_ms`]: isNumber });
const WRITE = { position: isPosition, op: isText, key: isText, at_ms: isNumber };
// What an item of each kind needs to be shown.
const ITEMS = {
  earlier: WRITE,
  writes: WRITE,
  applied: PROGRESS("applied"),
  acknowledged: PROGRESS("acknowledged"),
  reads: { source: isText, version: isNumber, at_ms: isNumber },
  state: { replica_id: isText, applied_position: isPosition, heartbeat_at: isText, delay_ms: isNumber, lag_ms: isKnownNumber, ack_lag_ms: isKnownNumber, faults: Array.isArray },
  groups: { replica: isText, delivered: isPosition, at_ms: isNumber },
  unreachable: { node: isText, detail: isText },
  events: { at_ms: isNumber, kind: isText },
};

// What is wrong with a message; null if nothing is.
function fault(message) {
  if (!isNumber(message?.now_ms)) return "now_ms is not a number";
  for (const [kind, fields] of Object.entries(ITEMS)) {
    const items = message[kind] ?? [];
    if (!Array.isArray(items)) return `${kind} is not a list`;
    for (const [name, isRight] of Object.entries(fields)) {
      if (!items.every((item) => isRight(item?.[name]))) return `${name} in ${kind} is missing or wrong`;
    }
  }
  return null;
}

// A recording as a page showed it at a time: a timeline of its messages up to then, whose clock stands still.
export class Replay {
  constructor(recording, at) {
    this.recording = recording;
    this.seek(at);
  }

  seek(at) {
    this.timeline = new Timeline(() => this._clock);
    this._next = 0;
    this.advance(at);
  }

  // Take a message that arrived late.
  add(text, message) {
    const { items } = this.recording;
    const before = items.length;
    this.recording.add(text, message);
    this._next -= before + 1 - items.length;
    this.advance(this.at);
  }

  // Before the first message, the time is shown with what that message says.
  advance(at) {
    this.at = at;
    const { items } = this.recording;
    const until = Math.max(at, this.recording.start ?? at);
    for (; this._next < items.length && items[this._next].message.now_ms <= until; this._next += 1) {
      const { message } = items[this._next];
      this._clock = message.now_ms;
      this.timeline.take(message);
    }
    this._clock = until;
    if (this._next) this.timeline.take({ now_ms: until }); // as at the end of a recording, so that both look the same
  }
}
