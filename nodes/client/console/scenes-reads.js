// Scenes on what reads see. What is right is always computed from what was measured.

import { ms, nearest, some, SOME, times } from "./stage.js";

const READS = 20; // of a quorum
const isStale = (answer, written) => answer.version < written.version;

export const SCENES = {
  "First stale read": ({ fast, slow, delays, settle, write, read }) => [
    {
      now: `Every replica gets the same value. Then ${slow} gets a delay of four seconds, ${fast} one of half a second.`,
      look: "Look at the lanes: one for the primary, and one for each replica.",
      at: { nodes: [slow] },
      run: async () => {
        const position = await settle();
        await delays(500, 4000);
        return { seen: `Every node is at position ${position}: all have the value “old”.` };
      },
    },
    {
      now: `The value “new” is written, and ${slow} is read right away, at level eventual.`,
      look: "The write is a mark on the primary's lane, the read a mark on the lane of the replica.",
      at: { nodes: ["primary", slow] },
      guess: { ask: "What will the read return?", choices: ["The new value", "The old value", "The new value, after a wait"] },
      run: async () => {
        const written = await write("new");
        const found = await read("eventual", slow);
        return {
          right: isStale(found, written) ? 1 : found.waited_ms < 1000 ? 0 : 2,
          seen: `The primary is at position ${written.position}. The read ${found.result}, after ${ms(found.waited_ms)}: ${isStale(found, written) ? "a stale read" : "a fresh read"}.`,
          at: { nodes: [slow], positions: [written.position] },
        };
      },
    },
    {
      now: `The value “newer” is written, and ${slow} is read at level session: it has to have the client's own writes first.`,
      look: "Follow the line: where it reaches the lane, the replica applies the write.",
      at: { nodes: [slow] },
      guess: { ask: "How long will the read wait?", choices: times(0, 2000, 4000) },
      run: async () => {
        const { position } = await write("newer");
        const found = await read("session", slow);
        return {
          right: nearest([0, 2000, 4000], found.waited_ms),
          seen: `The read waited ${ms(found.waited_ms)} for the write, and ${found.result}.`,
          at: { nodes: [slow], positions: [position] },
        };
      },
    },
  ],

  "The slowest replica sets the window": ({ fast, slow, delay, delays, settle, measure }) => [
    {
      now: `${fast} has a delay of 500 ms, ${slow} one of 1500 ms. A write follows.`,
      look: "The window of a write begins at its mark and ends when its last line has arrived.",
      at: { nodes: [slow] },
      guess: { ask: "How long until every replica has it?", choices: times(500, 1000, 1500) },
      run: async () => {
        await settle();
        await delays(500, 1500);
        const window = await measure();
        return { right: nearest([500, 1000, 1500], window), seen: `The window was ${ms(window)} long.`, at: { nodes: [slow], ids: ["windows"] } };
      },
    },
    {
      now: `Now ${fast} becomes ten times as fast, with a delay of 50 ms.`,
      look: `The line to ${fast} becomes steeper.`,
      at: { nodes: [fast] },
      guess: { ask: "How long will the window be?", choices: times(50, 775, 1500) },
      run: async () => {
        await delay(fast, 50);
        const window = await measure();
        return { right: nearest([50, 775, 1500], window), seen: `The window was ${ms(window)} long, with ${fast} at 50 ms.`, at: { nodes: [fast, slow], ids: ["windows"] } };
      },
    },
    {
      now: `Now ${slow} becomes faster too, with a delay of 700 ms.`,
      look: `${slow} is still the last one to get the write.`,
      at: { nodes: [slow] },
      guess: { ask: "How long will the window be?", choices: times(50, 375, 700) },
      run: async () => {
        await delay(slow, 700);
        const window = await measure();
        return { right: nearest([50, 375, 700], window), seen: `The window was ${ms(window)} long. Only the slowest replica counts.`, at: { nodes: [slow], ids: ["windows"] } };
      },
    },
  ],

  "Read your writes, three ways": ({ slow, delay, settle, write, read }) => {
    const writeAndRead = async (value, level, replica) => {
      const written = await write(value);
      const found = await read(level, replica);
      const wait = isStale(found, written) ? 0 : found.waited_ms < 1000 ? 1 : 2;
      return { wait, found, at: { nodes: [replica ?? "primary"], positions: [written.position] } };
    };
    const choices = ["It misses the write", "It returns the write at once", "It returns the write after a wait"];
    return [
      {
        now: `Every replica gets the same value. Then ${slow} gets a delay of three seconds.`,
        look: "A client will write, and read its own write from there, at three levels.",
        at: { nodes: [slow] },
        run: async () => {
          const position = await settle();
          await delay(slow, 3000);
          return { seen: `Every node is at position ${position}.` };
        },
      },
      {
        now: `The client writes “mine” and reads ${slow} at level eventual.`,
        look: "Any replica may answer in its current state.",
        at: { nodes: [slow] },
        guess: { ask: "What will the read do?", choices },
        run: async () => {
          const { wait, found, at } = await writeAndRead("mine", "eventual", slow);
          return { right: wait, at, seen: `The read ${found.result}, after ${ms(found.waited_ms)}.` };
        },
      },
      {
        now: `The client writes “mine again” and reads ${slow} at level session.`,
        look: "The replica has to have everything that the session wrote and was shown.",
        at: { nodes: [slow] },
        guess: { ask: "What will the read do?", choices },
        run: async () => {
          const { wait, found, at } = await writeAndRead("mine again", "session", slow);
          return { right: wait, at, seen: `The replica waited ${ms(found.waited_ms)} for the write, and the read ${found.result}.` };
        },
      },
      {
        now: "The client writes “mine once more” and reads at level strong.",
        look: "Reads at level strong go to the primary.",
        at: { nodes: ["primary"] },
        guess: { ask: "What will the read do?", choices },
        run: async () => {
          const { wait, found, at } = await writeAndRead("mine once more", "strong");
          return { right: wait, at, seen: `The read from the primary ${found.result} after ${ms(found.waited_ms)}. Each level has its cost: this one loads the primary.` };
        },
      },
    ];
  },

  "Going back in time": ({ fast, slow, delay, settle, write, read, arrive }) => [
    {
      now: `Every replica gets the same value. Then ${slow} gets a delay of four seconds.`,
      look: `${fast} stays at 100 ms.`,
      at: { nodes: [slow] },
      run: async () => {
        const position = await settle();
        await delay(slow, 4000);
        return { seen: `Every node is at position ${position}.` };
      },
    },
    {
      now: `The value “new” is written. When ${fast} has it, a reader reads ${fast}, and then ${slow}, at level eventual.`,
      look: "Both reads are marked on the lanes.",
      at: { nodes: [fast, slow] },
      guess: { ask: "What will the reader see?", choices: ["Old, then new", "New both times", "New, then old"] },
      run: async () => {
        const written = await write("new");
        await arrive(written.position, fast);
        const [first, second] = [await read("eventual", fast), await read("eventual", slow)];
        return {
          right: isStale(first, written) ? 0 : isStale(second, written) ? 2 : 1,
          seen: `${fast} ${first.result}, at version ${first.version}; then ${slow} ${second.result}, at version ${second.version}.`,
          at: { nodes: [fast, slow], positions: [written.position] },
        };
      },
    },
    {
      now: "The same once more, with “newer”, and both reads at level session.",
      look: "The second read has to be as new as the first.",
      at: { nodes: [fast, slow] },
      guess: { ask: "How long will the second read wait?", choices: times(0, 2000, 4000) },
      run: async () => {
        const { position } = await write("newer");
        await arrive(position, fast);
        const [first, second] = [await read("session", fast), await read("session", slow)];
        return {
          right: nearest([0, 2000, 4000], second.waited_ms),
          seen: `${fast} ${first.result}; ${slow} waited ${ms(second.waited_ms)}, and ${second.result}.`,
          at: { nodes: [slow], positions: [position] },
        };
      },
    },
  ],

  "A quorum": ({ names, fast, slow, delays, settle, write, read }) => {
    const n = names.length;
    const stale = async (r, written) => {
      let count = 0;
      for (let number = 1; number <= READS; number += 1) count += isStale(await read("quorum", null, { r }), written);
      return count;
    };
    const writeAndRead = async (acks, r) => {
      const before = performance.now();
      const written = await write(`${acks} acks`, { acks, timeoutMs: 10_000 });
      const took = performance.now() - before;
      return { took, written, count: await stale(r, written), at: { nodes: names, positions: [written.position] } };
    };
    const sum = (r, w) => `r + w = ${r + w} ${r + w > n ? ">" : "≤"} n = ${n}`;
    return [
      {
        now: `Every replica gets the same value. Then ${fast} gets a delay of 50 ms, ${slow} one of three seconds.`,
        look: `A write with acks=w returns when w of the n = ${n} replicas have acknowledged it; a read at level quorum asks r of them and takes the newest answer.`,
        at: { nodes: [fast, slow] },
        run: async () => {
          const position = await settle();
          await delays(50, 3000);
          return { seen: `Every node is at position ${position}.` };
        },
      },
      {
        now: `A write with acks=1, then ${READS} reads with r=1: each asks one random replica.`,
        look: `The write returns when ${fast} has it. The reads are marks on the lanes.`,
        at: { nodes: [fast, slow] },
        guess: { ask: `How many of the ${READS} reads will be stale?`, choices: SOME },
        run: async () => {
          const { took, count, at } = await writeAndRead(1, 1);
          return { right: some(count, READS), at, seen: `The write took ${ms(took)}; ${count} of ${READS} reads were stale. ${sum(1, 1)}: a read can miss the write.` };
        },
      },
      {
        now: `A write with acks=1, then ${READS} reads with r=${n}.`,
        look: "Each read asks every replica, so one of them has the write.",
        at: { nodes: names },
        guess: { ask: `How many of the ${READS} reads will be stale?`, choices: SOME },
        run: async () => {
          const { took, count, at } = await writeAndRead(1, n);
          return { right: some(count, READS), at, seen: `The write took ${ms(took)}; ${count} of ${READS} reads were stale. ${sum(n, 1)}: a read overlaps with the write.` };
        },
      },
      {
        now: `A write with acks=${n}, then ${READS} reads with r=1.`,
        look: `The write waits for every replica, also for ${slow}.`,
        at: { nodes: [slow] },
        guess: { ask: "How long will the write take?", choices: times(50, 1500, 3000) },
        run: async () => {
          const { took, count, at } = await writeAndRead(n, 1);
          return { right: nearest([50, 1500, 3000], took), at, seen: `The write took ${ms(took)}; ${count} of ${READS} reads were stale. ${sum(1, n)}: the write pays instead of the reads.` };
        },
      },
    ];
  },
};
