// Scenes on faults and recovery. What is right is always computed from what was measured.

import { ms, nearest, some, SOME, times } from "./stage.js";

const FAULT_MS = 3_600_000; // the scene ends it, or the client service

export const SCENES = {
  "A replica cut off from the log": ({ fast, slow, delays, fault, endFault, settle, writes, arrive, position, countOf, digests }) => {
    let positions;
    return [
      {
        now: `${slow} is cut off from the log.`,
        look: "Its state shows the fault. It still answers reads from its own store.",
        at: { nodes: [slow] },
        run: async () => {
          await settle();
          await delays(200, 200);
          await fault(slow, "partition", { duration_ms: FAULT_MS });
          return { seen: `${slow} is at position ${await position(slow)}.` };
        },
      },
      {
        now: `Ten writes follow; the scene waits until ${fast} has them.`,
        look: `Look for lines that do not reach the lane of ${slow}.`,
        at: { nodes: [fast, slow] },
        guess: { ask: `How many of the ten will ${slow} have then?`, choices: SOME },
        run: async () => {
          positions = await writes(10);
          await arrive(positions.at(-1), fast);
          const count = await countOf(positions, slow);
          return { right: some(count, 10), seen: `${fast} is at position ${await position(fast)}, ${slow} at ${await position(slow)}: it has ${count} of the ten.`, at: { nodes: [slow], positions } };
        },
      },
      {
        now: "The partition ends.",
        look: `${slow} reads on in the log where it stopped.`,
        at: { nodes: [slow] },
        guess: { ask: `How many of the ten will ${slow} apply now?`, choices: SOME },
        run: async () => {
          const before = performance.now();
          await endFault(slow, "partition");
          await arrive(positions.at(-1));
          const took = performance.now() - before;
          const count = await countOf(positions, slow);
          return { right: some(count, 10), seen: `After ${ms(took)}, ${slow} had applied ${count} of the ten. ${await digests("nothing was lost")}`, at: { nodes: [slow], positions } };
        },
      },
    ];
  },

  "Delayed acknowledgements and redelivery": ({ slow, ackDelay, fault, settle, writes, shown, held, gone, acknowledged, digests }) => {
    let last;
    return [
      {
        now: `${slow} acknowledges each entry three seconds after it has applied it. Five writes follow.`,
        look: "The thin lines are the acknowledgements on their way back to the primary's lane.",
        at: { nodes: [slow] },
        guess: { ask: "How long after it is applied will the fifth write be acknowledged?", choices: ["At once", ...times(1500, 3000)] },
        run: async () => {
          await settle();
          await ackDelay(slow, 3000);
          const positions = await writes(5);
          const write = await shown(positions.at(-1), slow, "acknowledged");
          const after = write.acknowledged.get(slow) - write.applied.get(slow);
          return { right: nearest([0, 1500, 3000], after), seen: `It was acknowledged ${ms(after)} after it was applied. Reads saw it as soon as it was applied.`, at: { nodes: [slow], positions } };
        },
      },
      {
        now: "The acknowledgements of five more writes are held back by a minute.",
        look: `Entries that are applied and not acknowledged stay pending: “unacknowledged” in the state of ${slow}.`,
        at: { nodes: [slow] },
        run: async () => {
          await ackDelay(slow, 60_000);
          const positions = await writes(5);
          last = positions.at(-1);
          return { seen: `${(await held(slow, last)).text}.`, at: { nodes: [slow], positions } };
        },
      },
      {
        now: `${slow} crashes, and its supervisor restarts it. The log delivers every pending entry again.`,
        look: "Its state shows that it does not answer, and then what it reports again.",
        at: { nodes: [slow] },
        guess: { ask: "How many entries will be applied and unacknowledged then?", choices: ["None", "Five", "Ten"] },
        run: async () => {
          await fault(slow, "crash");
          await gone(slow);
          const found = await held(slow, last);
          return { right: nearest([0, 5, 10], found.count), seen: `${found.text}.` };
        },
      },
      {
        now: "The acknowledgement delay ends.",
        look: "The thin lines arrive.",
        at: { nodes: [slow] },
        run: async () => {
          await ackDelay(slow, 0);
          await acknowledged(slow, last);
          return { seen: `Every entry up to ${last} is acknowledged. ${await digests("what was delivered twice was applied once")}` };
        },
      },
    ];
  },

  "A replica that lost its place": ({ fast, slow, delay, settle, fault, endFault, resync, write, writes, read, arrive, position, resyncing, shown, applied, digests }) => [
    {
      now: `${slow} gets a delay of four seconds, and is cut off from the log.`,
      look: "The log keeps the place of each replica: the position after which it reads on.",
      at: { nodes: [slow] },
      run: async () => {
        await settle();
        await delay(slow, 4000);
        await fault(slow, "partition", { duration_ms: FAULT_MS });
        return { seen: `The primary is at position ${await position("primary")}, ${slow} at ${await position(slow)}.` };
      },
    },
    {
      now: "A log drops its oldest entries. If those after a replica's place are gone, the replica cannot read on, and replaces its content with a snapshot of the primary's.",
      look: "This lab keeps at least 10,000 entries unless configured otherwise. So the scene does not wait for that, but requests the snapshot: POST /resync.",
      at: { nodes: [slow] },
      run: async () => {
        await resync(slow);
        return { seen: `The snapshot is requested. ${slow} is still cut off, at position ${await position(slow)}.` };
      },
    },
    {
      now: "Ten writes follow, and then the partition ends.",
      look: `Look at the state of ${slow}, and for lines that reach its lane.`,
      at: { nodes: [slow] },
      guess: { ask: `How many of the ten will ${slow} apply one by one?`, choices: SOME },
      run: async () => {
        const positions = await writes(10);
        await arrive(positions.at(-1), fast);
        const before = await position(slow);
        await endFault(slow, "partition");
        const reason = await resyncing(slow, positions.at(-1));
        const old = await read("eventual", slow); // while the snapshot is not due
        await arrive(positions.at(-1), slow);
        const after = await position(slow);
        await delay(slow, 100);
        await shown((await write("next")).position, slow, "applied"); // what it has applied before is known then
        const count = applied(positions, slow);
        return {
          right: some(count, 10),
          seen: `${reason ? `${slow} reported “resyncing: ${reason}”; until the snapshot was due, a read ${old.result}. ` : ""}${slow} went from position ${before} to ${after}, having applied ${count} of the ten one by one.`,
        };
      },
    },
    {
      now: `With the snapshot, ${slow} has a place in the log again, and reads on from there.`,
      look: "One more write has reached its lane as a line.",
      at: { nodes: [slow] },
      run: async () => {
        await arrive(await position("primary"));
        return { seen: `${slow} is at position ${await position(slow)}. ${await digests("the snapshot had everything that it skipped")}` };
      },
    },
  ],
};

// Scenes that need a log server with Sentinels.
export const LOG_SCENES = {
  "The log server fails over": ({ settle, writes, attempts, arrive, position, isolateMaster, heal, sights, failedOver, named, digests }) => {
    let before;
    let after;
    return [
      {
        now: "The log of this lab has several servers. One of them, the master, takes writes; the others copy it a moment later. Sentinels watch all of them.",
        look: "A write is acknowledged when the master has it, unless it asks for copies.",
        run: async () => ({ seen: `Every node has the value “old”, at position ${await settle()}.` }),
      },
      {
        now: "The master is cut off from the other log servers and from the Sentinels, but not from the nodes. Ten writes follow, 1 to 10. Then the Sentinels choose another master.",
        look: "The ten are acknowledged and applied. About five seconds later, a vertical line marks a new epoch.",
        guess: { ask: "How many of the ten will be in the log then?", choices: SOME },
        run: async () => {
          const start = performance.now();
          await isolateMaster();
          const positions = await writes(10);
          await arrive(positions.at(-1));
          before = await sights();
          const { ended, goesOn, has } = await failedOver(positions[0]);
          const took = performance.now() - start;
          const kept = positions.filter(has).length;
          const lost = kept < 10 ? await named(ended) : null;
          await arrive(goesOn);
          after = await sights();
          const names = lost ? ` The primary names ${lost.count} lost: ${lost.positions}.` : "";
          return { right: some(kept, 10), seen: `All ten were acknowledged. After ${ms(took)}, the log, which ended at ${ended}, went on at ${goesOn}: it has ${kept} of the ten.${names}`, at: { positions } };
        },
      },
      {
        now: "What did readers see? Each replica was read after the ten writes, and again in the new epoch.",
        look: "The strip below the lanes strikes out lost entries, and the notice at the top of the page names them.",
        at: { ids: ["strip", "breaks"] },
        run: async () => {
          await heal();
          const meaning = before === after ? "Readers lost nothing that they had seen." : "Readers saw values that no longer exist.";
          return { seen: `First, ${before}. Afterwards, ${after}. ${meaning}`, at: { ids: ["strip", "breaks"] } };
        },
      },
      {
        now: "The same again, but each of the ten writes asks for copies=2: both copies of the log that `lab up --ha` starts.",
        look: "The master is cut off from the servers that would have to confirm them.",
        guess: { ask: "How many of the ten will be acknowledged?", choices: SOME },
        run: async () => {
          const at = await settle();
          await isolateMaster();
          const outcomes = await attempts(10, { copies: 2 });
          const { ended, goesOn, has } = await failedOver(at);
          await arrive(goesOn);
          const acknowledged = outcomes.filter(({ outcome }) => outcome === "acknowledged");
          const unknown = outcomes.filter(({ outcome }) => outcome === "unknown").length;
          const lost = acknowledged.filter((write) => !has(write.position)).length;
          return { right: some(acknowledged.length, 10), seen: `${acknowledged.length} of the ten were acknowledged; ${unknown} were answered with 503 and the outcome “unknown”. The log ended at ${ended} and went on at ${goesOn}. It lost ${lost} acknowledged writes.` };
        },
      },
      {
        now: "The server that was cut off can be reached again.",
        look: "It drops what only it has, and copies the new master. Until then, no write gets two copies.",
        run: async () => {
          await heal();
          await arrive(await position("primary"));
          return { seen: `Every node is at position ${await position("primary")}. ${await digests("the nodes agree, also about what was lost")}` };
        },
      },
    ];
  },
};
