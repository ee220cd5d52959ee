// Guided scenes: each sets the lab up, says what to look at, does it, and puts things back.

import * as services from "./services.js";

class Stopped extends Error {}

const READ_MS = 5000; // how long a sentence stays before the next thing happens

const SCENES = [
  {
    name: "First stale read",
    async run({ say, delay, settled, write, read, fast, slow }) {
      await settled();
      await delay(fast, 500);
      await delay(slow, 4000);
      await say(`${slow} is now four seconds late. Look at the lowest lane: a write follows.`);
      const written = await write("scene", "new");
      const stale = await read("scene", "eventual", slow);
      await say(`The primary has position ${written.position}. ${slow} was asked at once, and ${stale.told}. That is a stale read.`);
      await say("Watch the line: where it meets the lane, the write is applied.", 1);
      const fresh = await read("scene", "session", slow);
      await say(`Asked again when the write had arrived, after ${fresh.waited_ms.toFixed(0)} ms, ${slow} ${fresh.told}.`);
    },
  },
  {
    name: "The window is the slowest replica",
    async run({ say, delay, measure, fast, slow }) {
      await delay(fast, 500);
      await delay(slow, 1500);
      await say(`With 500 and 1500 ms, a write takes ${await measure()} ms until every replica has it.`);
      await delay(fast, 50);
      await say(`${fast} is ten times as fast now: ${await measure()} ms. The window has not changed.`);
      await delay(slow, 700);
      await say(`${slow} is twice as fast now: ${await measure()} ms. Only the slowest counts.`);
    },
  },
  {
    name: "Reading your writes, three ways",
    async run({ say, delay, settled, write, read, slow }) {
      await settled();
      await delay(slow, 3000);
      await say(`Somebody writes, and then reads what they wrote, from ${slow}, which is three seconds late.`);
      await write("scene", "mine");
      const eventual = await read("scene", "eventual", slow);
      await say(`At level eventual it ${eventual.told}, at once: their own write is not there.`);
      await write("scene", "mine again");
      const session = await read("scene", "session", slow);
      await say(`At level session the replica waited ${session.waited_ms.toFixed(0)} ms until it had the write, and ${session.told}.`);
      await write("scene", "mine once more");
      const strong = await read("scene", "strong");
      await say(`At level strong the primary ${strong.told}, after ${strong.waited_ms.toFixed(0)} ms. Each way has its price.`);
    },
  },
  {
    name: "Going back in time",
    async run({ say, delay, settled, write, read, arrived, fast, slow }) {
      await settled();
      await delay(slow, 5000);
      await say(`Every replica has the old value. Now ${slow} is five seconds late, and a new value is written.`);
      await arrived((await write("scene", "new")).position, fast);
      const first = await read("scene", "eventual", fast);
      const second = await read("scene", "eventual", slow);
      await say(`One reader asked ${fast}, which ${first.told}, and then ${slow}, which ${second.told}: back in time.`);
      await say("A session would have waited: its token says what it has seen. Both marks are on the lanes.");
    },
  },
  {
    name: "A replica that was away",
    async run({ say, delay, write, arrived, fast, slow }) {
      await delay(fast, 200);
      await delay(slow, 200);
      await services.beginFault(slow, "partition", { duration_ms: 60000 });
      await say(`${slow} is cut off from the log. It still answers, from what it has.`);
      let last;
      for (let number = 1; number <= 10; number += 1) last = await write("scene", number);
      await arrived(last.position, fast);
      await say(`Ten writes have reached ${fast}, and none ${slow}: ten ways that are not at their end.`);
      await services.endFaults();
      await arrived(last.position);
      await say(`The partition is over, and ${slow} has caught up by itself: nothing was lost, nothing applied twice.`);
    },
  },
];

export class Scenes {
  // `names` gives the replicas' names; `pace` is a factor of the pauses for reading.
  constructor(document, { names, pace = 1 }) {
    this._document = document;
    this._names = names;
    this._pace = pace;
    this._stop = null;
    this._text = document.getElementById("scene-text");
    this._buttons = SCENES.map((scene, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${index + 1}. ${scene.name}`;
      button.addEventListener("click", () => this.play(scene));
      return button;
    });
    document.getElementById("scene-buttons").replaceChildren(...this._buttons);
    document.getElementById("scene-stop").addEventListener("click", () => this._stop?.());
  }

  async play(scene) {
    const names = this._names();
    if (names.length < 2) {
      this._text.textContent = "The scenes want two replicas; there are fewer just now.";
      return;
    }
    const stop = this._document.getElementById("scene-stop");
    for (const button of this._buttons) button.disabled = true;
    stop.hidden = false;
    const { body: before } = await services.delays();
    let stopped = false;
    const told = new Promise((resolve) => { this._stop = () => { stopped = true; resolve(); }; });
    const pause = async (seconds) => {
      await Promise.race([told, new Promise((resolve) => { setTimeout(resolve, seconds * READ_MS * this._pace); })]);
      if (stopped) throw new Stopped();
    };
    let end = "That was it; the delays are as they were before.";
    try {
      await scene.run(this._stage(names, pause));
    } catch (error) {
      end = error instanceof Stopped ? "Stopped; the delays are as they were before." : `The scene ended early: ${error.message}`;
    }
    await this._putBack(before);
    this._text.textContent += ` ${end}`;
    for (const button of this._buttons) button.disabled = false;
    stop.hidden = true;
  }

  _stage(names, pause) {
    const [fast, slow] = [names[0], names.at(-1)];
    const say = async (text, seconds = 1) => {
      this._text.textContent = text;
      await pause(seconds);
    };
    const delay = (replica, ms) => services.setDelay(replica, { delay_ms: ms });
    const write = async (key, value) => {
      await pause(0);
      return (await services.write("write", key, value)).body;
    };
    const read = async (key, level, replica) => {
      const { status, body } = await services.read(key, level, replica);
      const behind = body.behind_versions ? `, ${body.behind_versions} versions behind` : "";
      return { ...body, told: status === 404 ? "did not have it" : `answered “${body.value}”${behind}` };
    };
    const arrived = async (position, replica) => {
      for (;;) {
        const { body } = await services.everywhere("scene");
        const nodes = Object.entries(body.nodes).filter(([name]) => name !== "primary" && (!replica || name === replica));
        if (nodes.every(([, answer]) => later(answer.position, position))) return;
        await pause(0.05);
      }
    };
    // Every replica is fast, and has an old value of the key.
    const settled = async () => {
      for (const replica of names) await delay(replica, 100);
      await arrived((await write("scene", "old")).position);
    };
    const measure = async () => (await services.write("write-and-wait", "scene", Date.now())).body.consistency_time_ms.toFixed(0);
    return { say, delay, settled, write, read, arrived, measure, fast, slow };
  }

  async _putBack(before) {
    try {
      await services.endFaults();
      for (const [url, model] of Object.entries(before.models)) await services.setDelay(new URL(url).hostname, { model });
    } catch (error) {
      this._text.textContent += ` The delays could not be put back: ${error.message}`;
    }
  }
}

// Whether a position is that one, or after it.
function later(position, than) {
  const [[epoch, version], [wantedEpoch, wanted]] = [position ?? "0-0", than].map((text) => text.split("-").map(Number));
  return epoch > wantedEpoch || (epoch === wantedEpoch && version >= wanted);
}
