// A replica for Node.js 20 without packages. The contract is docs/bring-your-own.md.
//
// Everything runs on one thread: `follow` acknowledges, reads, waits and applies in turn; requests are answered between
// its steps. The data is in memory and in a journal, a file to which one line is added for each batch of entries.

import fs from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const { LAB_REDIS_URL, LAB_NAMESPACE, LAB_NODE_ID, LAB_PORT, LAB_DATA_DIR } = process.env;
const LOG = `${LAB_NAMESPACE}:log`;
const HEAD = ["HMGET", `${LAB_NAMESPACE}:head`, "epoch", "version"];
const BATCH = 500;
const BLOCK_MS = 500;
const JOURNAL_BYTES_MAX = 8 * 2 ** 20; // then it is replaced by a shorter one

// -- positions: [epoch, version] --------------------------------------------------------------------------------------

const positionOf = (text) => text.split("-").map(Number);
const text = (position) => position.join("-");
const compare = (a, b) => a[0] - b[0] || a[1] - b[1];

// -- the store --------------------------------------------------------------------------------------------------------

class Store {
  data = new Map(); // key -> { value: JSON text, version }
  position = [0, 0];
  #path = path.join(LAB_DATA_DIR, "journal");

  async open() {
    const found = await fs.readFile(this.#path, "utf8").catch(() => "");
    // Killed in the middle of a write, the last line has no end. Its entries are not acknowledged: they come again.
    const lines = found.split("\n").slice(0, -1);
    try {
      for (const line of lines) this.#show(JSON.parse(line));
    } catch {} // damaged in a power failure: what follows is missing, and a snapshot closes the gap
    await this.#rewrite();
  }

  // Changes and position are one line, so they become durable together, and are shown together.
  async apply(entries) {
    const changes = entries.map(({ op, key, value, position }) => [op, key, value, position[1]]);
    const batch = { position: entries.at(-1).position, changes };
    const line = JSON.stringify(batch) + "\n";
    // From here on kill -9 does not lose it. With `datasync` a power failure would not, either, at 1 to 70 ms a batch.
    await this.#file.appendFile(line);
    this.#show(batch);
    this.#bytes += line.length;
    if (this.#bytes > JOURNAL_BYTES_MAX) await this.#rewrite();
  }

  async install(position, records) {
    this.data = new Map(records);
    this.position = position;
    await this.#rewrite();
  }

  #show({ position, changes }) {
    for (const [op, key, value, version] of changes) {
      if (op === "set") this.data.set(key, { value, version });
      else if (op === "delete") this.data.delete(key);
      else if (op === "epoch" && value === "") this.data.clear(); // a reset; otherwise the content is kept
    }
    this.position = position;
  }

  // Write a journal that has the current content as its only line, and put it in place of the other one at once.
  async #rewrite() {
    const changes = [...this.data].map(([key, { value, version }]) => ["set", key, value, version]);
    const line = JSON.stringify({ position: this.position, changes: [["epoch", "", "", 0], ...changes] }) + "\n";
    const file = await fs.open(this.#path + ".new", "w");
    await file.appendFile(line);
    await file.datasync();
    await fs.rename(this.#path + ".new", this.#path);
    await this.#file?.close();
    this.#file = file;
    this.#bytes = line.length;
  }

  #file;
  #bytes = 0;
}

// -- the log server: the Redis protocol -------------------------------------------------------------------------------

class LogError extends Error {}

class Connection {
  #received = Buffer.alloc(0);
  #awaited = []; // the replies to come, in order

  constructor(url) {
    const { hostname, port, password, pathname } = new URL(url);
    this.socket = net.connect({ host: hostname, port: Number(port), noDelay: true });
    this.socket.on("data", (bytes) => this.#take(bytes));
    this.socket.on("error", (error) => this.fail(error.message));
    this.socket.on("close", () => this.fail("the connection was closed"));
    const first = [["SELECT", pathname.slice(1) || "0"]];
    if (password) first.unshift(["AUTH", decodeURIComponent(password)]);
    this.ready = this.call(...first);
    this.ready.catch(() => {}); // reported to the one who waits for it
  }

  // Send commands in one packet; return their replies. An error among them, or silence, raises LogError.
  async call(...commands) {
    const replies = commands.map(() => new Promise((resolve, reject) => this.#awaited.push({ resolve, reject })));
    if (this.socket.destroyed) this.fail("the connection was closed");
    else this.socket.write(commands.map(packed).join(""));
    const timer = setTimeout(() => this.fail("no answer in time"), BLOCK_MS + 2000);
    try {
      return await Promise.all(replies);
    } finally {
      clearTimeout(timer);
      Promise.allSettled(replies);
    }
  }

  fail(why) {
    for (const { reject } of this.#awaited.splice(0)) reject(new LogError(why));
    this.socket.destroy();
  }

  #take(bytes) {
    this.#received = Buffer.concat([this.#received, bytes]);
    for (let found; (found = parse(this.#received, 0)); ) {
      this.#received = this.#received.subarray(found.end);
      const { resolve, reject } = this.#awaited.shift() ?? {};
      if (found.value instanceof LogError) reject?.(found.value);
      else resolve?.(found.value);
    }
  }
}

const bulk = (word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`;
const packed = (words) => `*${words.length}\r\n${words.map(bulk).join("")}`;

// Return the reply that starts at a place, and where it ends; nothing if it has not arrived completely.
function parse(bytes, start) {
  const lineEnd = bytes.indexOf("\r\n", start);
  if (lineEnd < 0) return undefined;
  const line = bytes.toString("utf8", start + 1, lineEnd);
  let end = lineEnd + 2;
  switch (String.fromCharCode(bytes[start])) {
    case "-":
      return { value: new LogError(line), end };
    case ":":
      return { value: Number(line), end };
    case "$": {
      if (line === "-1") return { value: null, end };
      const last = end + Number(line);
      return last + 2 > bytes.length ? undefined : { value: bytes.toString("utf8", end, last), end: last + 2 };
    }
    case "*": {
      if (line === "-1") return { value: null, end };
      const value = [];
      for (let n = 0; n < Number(line); n++) {
        const found = parse(bytes, end);
        if (!found) return undefined;
        value.push(found.value);
        end = found.end;
      }
      return { value, end };
    }
    default:
      return { value: line, end };
  }
}

const pairs = (flat) => flat.flatMap((_, n) => (n % 2 ? [] : [[flat[n], flat[n + 1]]]));

// -- the replica ------------------------------------------------------------------------------------------------------

class Replica {
  waiting = []; // delivered and not due yet
  done = []; // IDs to acknowledge
  last; // position of the newest entry delivered without a gap
  cursor; // what to read next: pending entries after an ID, or ">"
  delayUs = 0;
  clockUs = -Infinity; // by how much the log server's clock is ahead of this process's

  constructor(store) {
    this.store = store;
  }

  async follow() {
    for (;;) {
      try {
        this.log = new Connection(LAB_REDIS_URL);
        await this.log.ready;
        await this.start();
        for (;;) await this.step();
      } catch (error) {
        if (!(error instanceof LogError)) throw error; // ends the program
        console.error(`log server: ${error.message}`);
        this.log.fail("closed");
        await sleep(200);
      }
    }
  }

  // As after a restart: what is pending comes first.
  async start() {
    await this.log.call(["XGROUP", "CREATE", LOG, LAB_NODE_ID, "0", "MKSTREAM"]).catch((error) => {
      if (!error.message.startsWith("BUSYGROUP")) throw error;
    });
    Object.assign(this, { waiting: [], done: [], last: this.store.position, cursor: "0", clockUs: -Infinity });
  }

  async step() {
    const asked = this.cursor;
    const { found, head } = await this.exchange();
    await this.take(found);
    if (asked === ">" && !found.length && compare(this.last, head) < 0) await this.snapshot();
    if (this.waiting.length) await sleep(Math.min(Math.max(this.dueUs(this.waiting[0]) - this.nowUs(), 0) / 1000, 10));
    await this.applyDue();
  }

  // Acknowledge, and read, in one round trip; the head is read before the entries.
  async exchange() {
    const read = ["XREADGROUP", "GROUP", LAB_NODE_ID, LAB_NODE_ID, "COUNT", String(BATCH)];
    if (!this.waiting.length) read.push("BLOCK", String(BLOCK_MS));
    const settingsOf = ["HGET", `${LAB_NAMESPACE}:settings`, LAB_NODE_ID];
    const commands = [HEAD, settingsOf, [...read, "STREAMS", LOG, this.cursor], ["TIME"]];
    if (this.done.length) commands.unshift(["XACK", LOG, LAB_NODE_ID, ...this.done]);
    const [head, settings, reply, [seconds, us]] = (await this.log.call(...commands)).slice(-4);
    this.done = [];
    this.clockUs = Math.max(this.clockUs, seconds * 1e6 + Number(us) - performance.now() * 1000); // late, never early
    this.delayUs = 1000 * (JSON.parse(settings ?? "{}").delay?.ms ?? 0);
    const found = reply?.[0][1] ?? [];
    if (this.cursor !== ">") this.cursor = found.length ? found.at(-1)[0] : ">";
    return { found, head: head.map(Number) };
  }

  async take(found) {
    for (const [id, flat] of found) {
      const position = positionOf(id);
      const fields = Object.fromEntries(pairs(flat ?? [])); // none if it was trimmed: the next entry shows a gap
      if (compare(position, this.store.position) <= 0 || !("op" in fields)) this.done.push(id);
      else if (compare(position, this.last) > 0) {
        const entry = { ...fields, id, position };
        if (!this.connects(entry)) return this.snapshot();
        if (entry.op === "epoch" && entry.value === "") this.done.push(...this.waiting.splice(0).map((one) => one.id));
        this.waiting.push(entry);
        this.last = position;
      } // otherwise it waits already
    }
  }

  connects({ op, value, position }) {
    if (op === "epoch") return value === "" || JSON.parse(value) === text(this.last);
    return position[0] === this.last[0] && position[1] === this.last[1] + 1;
  }

  async snapshot() {
    const data = ["HGETALL", `${LAB_NAMESPACE}:data`];
    const [content, position] = (await this.log.call(["MULTI"], data, HEAD, ["EXEC"])).at(-1);
    const records = pairs(content).map(([key, record]) => [key, JSON.parse(record)]);
    const kept = records.map(([key, { value, version }]) => [key, { value: JSON.stringify(value), version }]);
    await this.store.install(position.map(Number), kept);
    await this.log.call(["XGROUP", "SETID", LOG, LAB_NODE_ID, text(this.store.position)]);
    await this.start();
  }

  dueUs = (entry) => (entry.op === "epoch" ? 0 : Number(entry.at) + this.delayUs);
  nowUs = () => performance.now() * 1000 + this.clockUs;

  async applyDue() {
    const now = this.nowUs();
    const end = this.waiting.slice(0, BATCH).findIndex((entry) => this.dueUs(entry) > now);
    const due = this.waiting.splice(0, end < 0 ? BATCH : end);
    if (!due.length) return;
    await this.store.apply(due); // first durable,
    this.done.push(...due.map((entry) => entry.id)); // and only then acknowledged
  }
}

// -- requests ---------------------------------------------------------------------------------------------------------

function answer({ data, position }, url) {
  const at = JSON.stringify(text(position));
  if (url === "/version") return [200, `{"position":${at},"version":${position[1]},"epoch":${position[0]}}`];
  if (!url.startsWith("/data/")) return [404, "{}"];
  const key = decodeURIComponent(url.slice("/data/".length));
  const found = data.get(key);
  if (!found) return [404, `{"position":${at}}`];
  return [200, `{"key":${JSON.stringify(key)},"value":${found.value},"version":${found.version},"position":${at}}`];
}

const store = new Store();
await store.open();
const server = http.createServer((request, response) => {
  const [status, body] = answer(store, request.url);
  response.statusCode = status;
  response.setHeader("Content-Type", "application/json").end(body);
});
server.listen(Number(LAB_PORT), "127.0.0.1");
await new Replica(store).follow();
