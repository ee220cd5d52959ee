// Guided scenes: each sets delays, explains what to watch, and runs; the client service restores the settings.

import { element, find, versionsBehind } from "./dom.js";
import * as services from "./services.js";
import { parsePosition, reached } from "./timeline.js";

const READ_MS = 5000; // time to read a sentence before the scene continues
const RENEW_MS = 3000; // a third of the lease
const LEAVE_MS = 1000; // for requests on their way when the page is closed

const SCENES = {
  async "First stale read"({ say, delays, settle, write, read, slow }) {
    await settle();
    await delays(500, 4000);
    await say(`${slow} now has a delay of four seconds. Watch the bottom lane: a write follows.`);
    const written = await write("scene", "new");
    const stale = await read("scene", "eventual", slow);
    await say(`The primary is at position ${written.position}. A read from ${slow} right away ${stale.result}. That is a stale read.`);
    await say("Follow the line: where it reaches the lane, the replica applies the write.");
    const fresh = await read("scene", "session", slow);
    await say(`At level session, ${slow} waited ${fresh.waited_ms.toFixed(0)} ms for the write, and the read ${fresh.result}.`);
  },
  async "The slowest replica sets the window"({ say, delay, delays, measure, fast, slow }) {
    await delays(500, 1500);
    await say(`With delays of 500 and 1500 ms, a write takes ${await measure()} ms to reach every replica.`);
    await delay(fast, 50);
    await say(`${fast} is now ten times as fast: ${await measure()} ms. The window has not changed.`);
    await delay(slow, 700);
    await say(`${slow} is now more than twice as fast: ${await measure()} ms. Only the slowest replica counts.`);
  },
  async "Read your writes, three ways"({ say, delay, settle, write, read, slow }) {
    await settle();
    await delay(slow, 3000);
    await say(`A client writes, then reads its own write from ${slow}, which has a delay of three seconds.`);
    await write("scene", "mine");
    const eventual = await read("scene", "eventual", slow);
    await say(`At level eventual, the read ${eventual.result} immediately: the client's own write is missing.`);
    await write("scene", "mine again");
    const session = await read("scene", "session", slow);
    await say(`At level session, the replica waited ${session.waited_ms.toFixed(0)} ms for the write, and the read ${session.result}.`);
    await write("scene", "mine once more");
    const strong = await read("scene", "strong");
    await say(`At level strong, the read from the primary ${strong.result} after ${strong.waited_ms.toFixed(0)} ms. Each level has its cost.`);
  },
  async "Going back in time"({ say, delay, settle, write, read, arrive, fast, slow }) {
    await settle();
    await delay(slow, 5000);
    await say(`Every replica has the old value. ${slow} now has a delay of five seconds, and a new value is written.`);
    await arrive((await write("scene", "new")).position, fast);
    const first = await read("scene", "eventual", fast);
    const second = await read("scene", "eventual", slow);
    await say(`A reader asked ${fast}, which ${first.result}, and then ${slow}, which ${second.result}: it went back in time.`);
    await say("At level session the second read would have waited until it was as new as the first. Both reads are marked on the lanes.");
  },
  async "A replica cut off from the log"({ say, delays, write, arrive, fast, slow }) {
    await delays(200, 200);
    await services.startFault(slow, { fault: "partition", duration_ms: 60000 });
    await say(`${slow} is cut off from the log. It still serves reads from its own store.`);
    let last;
    for (let number = 1; number <= 10; number += 1) last = await write("scene", number);
    await arrive(last.position, fast);
    await say(`Ten writes have reached ${fast} and none has reached ${slow}: ten lines do not reach its lane.`);
    await services.endFaults();
    await arrive(last.position);
    await say(`The partition has ended and ${slow} has caught up: no write was lost or applied twice.`);
  },
  async "Delayed acknowledgements and redelivery"({ say, ackDelay, settle, write, held, acknowledged, gone, digests, slow }) {
    const five = async () => {
      let last;
      for (let number = 1; number <= 5; number += 1) last = await write("scene", number);
      return last.position;
    };
    await settle();
    await ackDelay(slow, 3000);
    await say(`${slow} now acknowledges each entry three seconds after it has applied it. Five writes follow; watch the thin lines.`);
    await acknowledged(slow, await five());
    await say("Reads saw the five writes three seconds earlier; only now are they acknowledged: the thin lines reach the primary's lane.");
    await ackDelay(slow, 60_000);
    const last = await five();
    await say(`The acknowledgements of five more are held back by a minute. ${await held(slow, last)}.`);
    await services.startFault(slow, { fault: "crash" });
    await gone(slow);
    await say(`${slow} crashed and restarted; the log delivers the unacknowledged entries again. ${await held(slow, last)}, as before.`);
    await ackDelay(slow, 0);
    await acknowledged(slow, last);
    await say(`Now they are acknowledged: delivered twice, applied once. The nodes' digests are ${await digests()}.`);
  },
};

// `timeline` has the replicas' states; `pace` scales the pauses for reading.
export function addScenes({ timeline, pace }) {
  const buttons = Object.entries(SCENES).map(([name, run], index) => {
    const button = element("button", { type: "button", textContent: `${index + 1}. ${name}` });
    button.addEventListener("click", () => play(name, run));
    return button;
  });
  find("scene-buttons").replaceChildren(...buttons);

  async function play(name, run) {
    if (timeline.names().length < 2) {
      find("scene-text").textContent = "The scenes require two replicas.";
      return;
    }
    const stop = new AbortController();
    const setRunning = (running) => {
      for (const button of buttons) button.disabled = running;
      find("scene-stop").hidden = !running;
    };
    setRunning(true);
    find("scene-stop").addEventListener("click", () => stop.abort(), { once: true });
    let lease = null;
    let end = "Scene finished; the delays are restored.";
    try {
      lease = await hold(name, stop);
      await run(stage(timeline, (share) => pause(share * READ_MS * pace, stop.signal)));
    } catch (error) {
      end = stop.signal.aborted ? "Scene stopped; the delays are restored." : `The scene failed: ${error.message}`;
    }
    await lease?.end().catch((error) => { end = `The delays could not be restored: ${error.message}`; });
    find("scene-text").textContent += ` ${end}`;
    setRunning(false);
  }
}

// The client service restores the settings and ends the faults when the scene ends, or when this page no longer renews it.
async function hold(name, stop) {
  const { id } = (await services.beginScene(name)).body;
  const renew = async (leaseMs) => {
    const { status } = await services.renewScene(id, leaseMs).catch(() => ({})); // the next one can succeed
    if (status === 404) stop.abort();
  };
  const timer = setInterval(() => renew(), RENEW_MS);
  const leave = () => renew(LEAVE_MS);
  window.addEventListener("pagehide", leave);
  return {
    async end() {
      clearInterval(timer);
      window.removeEventListener("pagehide", leave);
      await services.endScene(id);
    },
  };
}

async function pause(ms, signal) {
  signal.throwIfAborted();
  await new Promise((resolve) => {
    signal.addEventListener("abort", resolve);
    setTimeout(resolve, ms);
  });
  signal.throwIfAborted();
}

// The steps that a scene is made of.
function stage(timeline, rest) {
  const names = timeline.names();
  const [fast, slow] = [names[0], names.at(-1)];
  const say = async (text) => {
    find("scene-text").textContent = text;
    await rest(1);
  };
  const delay = (replica, ms) => services.setDelay(replica, { delay_ms: ms });
  const ackDelay = (replica, ms) => services.setDelay(replica, { ack_delay_ms: ms });
  const delays = async (fastMs, slowMs) => {
    await delay(fast, fastMs);
    await delay(slow, slowMs);
  };
  const write = async (key, value) => {
    await rest(0);
    return (await services.write("write", key, value)).body;
  };
  const read = async (key, level, replica) => {
    const { status, body } = await services.read(key, level, replica);
    const behind = body.behind_versions ? `, ${versionsBehind(body.behind_versions)}` : "";
    return { ...body, result: status === 404 ? "did not find the key" : `returned “${body.value}”${behind}` };
  };
  // Poll until the check returns something.
  const until = async (check) => {
    for (;;) {
      const found = await check();
      if (found) return found;
      await rest(0.05);
    }
  };
  const everywhere = async () => (await services.everywhere("scene")).body.nodes;
  // Wait until the replica, or every replica, has reached the position.
  const arrive = (position, replica) =>
    until(async () => {
      const nodes = await everywhere();
      const replicas = Object.keys(nodes).filter((name) => name !== "primary" && (!replica || name === replica));
      return replicas.every((name) => reached(parsePosition(nodes[name].position ?? "0-0"), parsePosition(position)));
    });
  const gone = (replica) => until(async () => (await everywhere())[replica].error);
  const acknowledged = (replica, position) => until(() => timeline.acknowledgedVersion(replica) >= parsePosition(position).version);
  // Wait until the replica reports entries up to the position as applied and some as not acknowledged; a sentence on it.
  const held = async (replica, position) => {
    await arrive(position, replica);
    return until(() => {
      const { applied_position: applied, acknowledged_version: version, applied_unacknowledged: count } = timeline.replicas.get(replica);
      if (!count || version === null || !reached(parsePosition(applied), parsePosition(position))) return null;
      return `${replica} has applied version ${parsePosition(applied).version} and acknowledged version ${version}: ${count} are applied and unacknowledged`;
    });
  };
  const digests = async () => {
    const { digests_equal: equal } = (await services.compare()).body.analysis;
    return equal === null ? "not comparable while writes arrive" : equal ? "equal" : "different";
  };
  // Make every replica fast and give it an old value of the key.
  const settle = async () => {
    for (const replica of names) await delay(replica, 100);
    await arrive((await write("scene", "old")).position);
  };
  const measure = async () => (await services.write("write-and-wait", "scene", Date.now())).body.consistency_time_ms.toFixed(0);
  return { say, delay, delays, ackDelay, settle, write, read, arrive, held, acknowledged, gone, digests, measure, fast, slow };
}
