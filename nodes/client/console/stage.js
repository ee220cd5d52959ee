// The verbs of scenes: what a scene does with the lab, and what it measures.

import { versionsBehind } from "./dom.js";
import * as services from "./services.js";
import { parsePosition, reached } from "./timeline.js";

const POLL_MS = 100;
const KEY = "scene";

export const ms = (time) => `${time.toFixed(0)} ms`;

// The index of the value that is nearest to what was measured.
export function nearest(values, measured) {
  const distances = values.map((value) => Math.abs(value - measured));
  return distances.indexOf(Math.min(...distances));
}

export const times = (...values) => values.map((value) => (value ? `About ${value} ms` : "Not at all"));

export const SOME = ["None", "Some", "All"];
export const some = (count, of) => (count === 0 ? 0 : count === of ? 2 : 1);

// `signal` ends every wait, and nothing is changed after it. `timeline` has what the replicas report.
export function stage(timeline, signal) {
  const names = timeline.names();
  const [fast, slow] = [names[0], names.at(-1)];
  // A request that changes the lab.
  const changes = (request) => (...given) => {
    signal.throwIfAborted();
    return request(...given);
  };
  const delay = changes((replica, delayMs) => services.setDelay(replica, { delay_ms: delayMs }));
  const ackDelay = changes((replica, delayMs) => services.setDelay(replica, { ack_delay_ms: delayMs }));
  // A write whose outcome can be unknown: the copies that it waits for may not confirm it in time.
  const attempt = changes(async (value, options) => {
    try {
      return { outcome: "acknowledged", ...(await services.write("write", KEY, value, { repeatable: false, ...options })).body };
    } catch (error) {
      if (error.outcome) return error;
      throw error;
    }
  });
  const attempts = (count, options) => Promise.all(Array.from({ length: count }, (_, index) => attempt(index + 1, options)));
  const isolateMaster = () => fault("log", "isolate-master");
  const heal = () => endFault("log", "isolate-master");
  const fault = changes((replica, name, parameters) => services.startFault(replica, { fault: name, ...parameters }));
  const endFault = changes(services.endFault);
  const resync = changes(services.resync);
  const delays = async (fastMs, slowMs) => {
    await delay(fast, fastMs);
    await delay(slow, slowMs);
  };
  const write = changes(async (value, options) => (await services.write("write", KEY, value, options)).body);
  const writes = async (count, value = (number) => number) => {
    const positions = [];
    for (let number = 1; number <= count; number += 1) positions.push((await write(value(number))).position);
    return positions;
  };
  const read = async (level, replica, options) => {
    const { status, body } = await services.read(KEY, level, replica, options);
    const behind = body.behind_versions ? `, ${versionsBehind(body.behind_versions)}` : "";
    return { ...body, result: status === 404 ? "did not find the key" : `returned “${body.value}”${behind}` };
  };
  // Poll until the check returns something.
  const until = async (check) => {
    for (;;) {
      signal.throwIfAborted();
      const found = await check();
      if (found) return found;
      await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
    }
  };
  // What an eventual read of each replica returns.
  const sights = async () => {
    const found = [];
    for (const name of names) found.push(`${name} returned “${(await read("eventual", name)).value}”`);
    return found.join(", ");
  };
  // Wait until the log continues in an epoch after the position's: where it ended, and where it goes on.
  const failedOver = async (at) => {
    const { epoch, origin } = await until(() => timeline.continued(parsePosition(at)));
    return { ended: `${origin.epoch}-${origin.version}`, goesOn: `${epoch}-${origin.version}`, has: (one) => reached(origin, parsePosition(one)) };
  };
  // What the primary reports as lost after a position.
  const named = (ended) => until(() => timeline.breaks.find(({ kind, after }) => kind === "lost" && after === ended));
  const everywhere = async () => (await services.everywhere(KEY)).body.nodes;
  const has = (node, position) => reached(parsePosition(node.position ?? "0-0"), parsePosition(position));
  // Wait until the replica, or every replica, has reached the position.
  const arrive = (position, replica) =>
    until(async () => {
      const nodes = await everywhere();
      return Object.keys(nodes).every((name) => name === "primary" || (replica && name !== replica) || has(nodes[name], position));
    });
  const position = async (node) => (await everywhere())[node].position;
  const gone = (replica) => until(async () => (await everywhere())[replica].error);
  const acknowledged = (replica, at) => until(() => timeline.acknowledgedVersion(replica) >= parsePosition(at).version);
  // The write as the lanes show it, once the replica's progress with it is known.
  const shown = (at, replica, kind) => until(() => timeline.writes.get(at)?.[kind].has(replica) && timeline.writes.get(at));
  // How many of the writes the replica's position covers.
  const countOf = async (positions, replica) => {
    const node = (await everywhere())[replica];
    return positions.filter((at) => has(node, at)).length;
  };
  // How many of the writes, of the last minute, the replica has applied as single entries.
  const applied = (positions, replica) => positions.filter((at) => timeline.writes.get(at)?.applied.has(replica)).length;
  // The reason that the replica reports, or null if it reaches the position without a report.
  const resyncing = (replica, at) =>
    until(async () => {
      const reason = timeline.replicas.get(replica)?.resyncing;
      if (reason || has((await everywhere())[replica], at)) return { reason: reason || null };
      return null;
    }).then(({ reason }) => reason);
  // Wait until the replica reports entries up to the position as applied and some as not acknowledged.
  const held = async (replica, at) => {
    await arrive(at, replica);
    return until(() => {
      const { applied_position: last, acknowledged_version: version, applied_unacknowledged: count } = timeline.replicas.get(replica);
      if (!count || version === null || !reached(parsePosition(last), parsePosition(at))) return null;
      const versions = `${replica} has applied version ${parsePosition(last).version} and acknowledged version ${version}`;
      return { count, text: `${versions}: ${count} are applied and unacknowledged` };
    });
  };
  // A sentence, with what it means if the digests are equal.
  const digests = async (meaning) => {
    const { digests_equal: equal } = (await services.compare()).body.analysis;
    if (equal === null) return "The nodes' digests are not comparable while writes arrive.";
    return `The nodes' digests are ${equal ? `equal: ${meaning}` : "different"}.`;
  };
  // Make every replica fast and give it an old value of the key.
  const settle = async () => {
    for (const replica of names) await delay(replica, 100);
    const { position: at } = await write("old");
    await arrive(at);
    return at;
  };
  // Milliseconds from a write until every replica has it.
  const measure = changes(async () => {
    const { body } = await services.write("write-and-wait", KEY, Date.now());
    if (!body.consistency_achieved) throw new Error(`${body.missing.join(", ")} did not receive the write in time.`);
    return body.consistency_time_ms;
  });
  return {
    names, fast, slow, delay, delays, ackDelay, fault, endFault, resync, write, writes, read, arrive, position, gone,
    acknowledged, shown, countOf, applied, resyncing, held, digests, settle, measure,
    attempts, isolateMaster, heal, sights, failedOver, named,
  };
}
