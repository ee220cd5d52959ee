// The page: the feed goes into the timeline, and the timeline is drawn.

import { Charts, table } from "./charts.js";
import { Controls } from "./controls.js";
import { Lanes } from "./lanes.js";
import { Scenes } from "./scenes.js";
import * as services from "./services.js";
import { Timeline } from "./timeline.js";

const CHARTS_MS = 1000;
const SUMMARY_MS = 5000;
const RACE_POINTS = 120;
const ROWS = 20;
const BUSY_MS = 4;

const find = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const timeline = new Timeline();
const lanes = new Lanes(find("lanes"));
const charts = new Charts(document);
const race = { names: [], seconds: [], versions: new Map(), samples: [] };
const answers = new Map(); // what each node answered for the watched key, and for which of its versions
let watched = find("key").value;
let paused = null; // the moment that is looked at, by the log's clock
let summary = "";

const controls = new Controls(document, { watched: (key) => watch(key) });

new Scenes(document, { names: () => timeline.names(), pace: Number(new URLSearchParams(location.search).get("pace") ?? 1) });

function connect() {
  const source = new EventSource("/events");
  source.addEventListener("open", () => say("open", "Live"));
  source.addEventListener("error", () => say("lost", "The connection is lost; trying again …"));
  source.addEventListener("missed", () => say("open", "Live; some of what happened was missed"));
  source.addEventListener("message", (event) => take(JSON.parse(event.data)));
}

function say(state, text) {
  find("connection").dataset.state = state;
  find("connection").textContent = text;
}

function take(message) {
  timeline.take(message);
  const names = timeline.names();
  if (names.length) controls.replicas(names).catch((error) => { find("changed").textContent = error.message; });
  const touched = (position) => timeline.writes.get(position)?.key === watched || timeline.writes.get(position)?.op === "epoch";
  if ([...(message.writes ?? []), ...(message.applied ?? [])].some(({ position }) => touched(position))) refresh();
}

function watch(key) {
  watched = key;
  answers.clear();
  refresh();
}

// What each node answers for the watched key: asked when one of them has something new, and once at a time.
let asking = false;
let again = false;
async function refresh() {
  again = asking;
  if (asking || !watched) return;
  asking = true;
  try {
    const key = watched;
    const { body } = await services.everywhere(key);
    if (key === watched) for (const [node, answer] of Object.entries(body.nodes)) answers.set(node, said(answer));
  } catch (error) {
    answers.clear();
  }
  asking = false;
  if (again) refresh();
}

const said = (answer) => answer.error ?? (answer.version ? short(JSON.stringify(answer.value)) : "no such key");

const short = (text) => (text.length > 60 ? `${text.slice(0, 60)}…` : text);

function sample() {
  const head = timeline.head;
  const names = ["primary", ...timeline.names()];
  const versions = names.map((name) => (name === "primary" ? head?.version ?? null : appliedVersion(name)));
  if (paused !== null || names.length === 1) return;
  race.samples.push({ at: timeline.now(), names, versions });
  while (race.samples.length > RACE_POINTS) race.samples.shift();
  race.names = names;
  race.seconds = race.samples.map(({ at }) => (at - timeline.now()) / 1000);
  race.versions = new Map(names.map((name) => [name, race.samples.map((one) => one.versions[one.names.indexOf(name)] ?? null)]));
}

function appliedVersion(name) {
  const state = timeline.replicas.get(name);
  if (!state) return null;
  const [epoch, version] = state.applied_position.split("-").map(Number);
  for (let index = timeline.list.length - 1; index >= 0; index -= 1) {
    const write = timeline.list[index];
    if (write.epoch < epoch || (write.epoch === epoch && write.version <= version)) break;
    if (write.applied.has(name)) return write.version;
  }
  return version;
}

function showNow() {
  const head = timeline.head;
  const rows = timeline.names().map((name) => {
    const state = timeline.replicas.get(name);
    const wrong = timeline.away.get(name);
    const version = appliedVersion(name);
    const behind = head && version !== null ? Math.max(0, head.version - version) : state.lag_versions;
    const faults = [...state.faults, ...(state.diverged ? ["diverged"] : []), ...(state.resyncing ? [`resyncing: ${state.resyncing}`] : [])];
    const how = wrong ?? (faults.length ? faults.join(", ") : state.live ? (behind ? "behind" : "up to date") : "away");
    return [name, version, behind, `${state.lag_ms.toFixed(0)} ms`, state.pending, answers.get(name) ?? "", how];
  });
  find("watched-name").textContent = short(watched);
  const primary = ["primary", head?.version ?? "", "", "", "", answers.get("primary") ?? "", timeline.away.get("primary") ?? ""];
  const body = find("now").tBodies[0];
  body.replaceChildren(
    ...[primary, ...rows].map((row) => {
      const line = document.createElement("tr");
      line.append(
        ...row.map((text, column) => {
          const cell = document.createElement(column ? "td" : "th");
          if (!column) cell.scope = "row";
          if (column === 5) cell.className = "value";
          cell.textContent = text;
          return cell;
        }),
      );
      return line;
    }),
  );
}

function showWrites() {
  const names = timeline.names();
  const last = timeline.list.slice(-ROWS).reverse();
  const rows = last.map((write) => [
    write.position,
    write.op === "epoch" ? "a new epoch" : short(write.key),
    ...names.map((name) => {
      if (write.applied.has(name)) return `${(write.applied.get(name) - write.at_ms).toFixed(1)} ms`;
      return timeline.has(name, write) ? "applied" : "on its way";
    }),
  ]);
  table(document, "writes", ["position", "key", ...names], rows);
}

function summarize() {
  const state = timeline.names().map((name) => timeline.replicas.get(name));
  if (!state.length || paused !== null) return;
  const behind = state.filter((one) => one.lag_versions);
  const text = behind.length ? behind.map((one) => `${one.replica_id} is ${one.lag_versions} versions behind`).join("; ") : "Every replica has every write.";
  if (text !== summary) find("summary").textContent = summary = text;
}

function frame() {
  const now = timeline.now();
  if (now === null) return;
  const end = paused === null ? now : paused - Number(find("back").value) * 1000;
  const left = lanes.draw(timeline, { end, span: Number(find("span").value) * 1000, now });
  find("left-out").hidden = !left;
  find("left-out").textContent = `${left} older writes are left out of the picture.`;
}

function pause() {
  paused = paused === null ? timeline.now() : null;
  find("pause").setAttribute("aria-pressed", String(paused !== null));
  find("pause").textContent = paused === null ? "Pause" : "Go on";
  find("back").disabled = paused === null;
  if (paused === null) find("back").value = 0;
  stepped();
}

function stepped() {
  const back = Number(find("back").value);
  find("back-text").textContent = back ? `${back} s before` : "now";
  frame();
}

find("pause").addEventListener("click", pause);
find("back").addEventListener("input", stepped);
// Ten pictures a second, fewer where one takes long, and one where the picture is asked to keep still.
let drawn = 0;
let took = 0;
setInterval(() => {
  const began = performance.now();
  const rest = calm.matches ? 1000 : took > BUSY_MS ? 200 : 0;
  if (document.hidden || began - drawn < rest) return;
  drawn = began;
  frame();
  took = performance.now() - began;
}, 100);
setInterval(() => {
  sample();
  if (document.hidden) return;
  showNow();
  if (find("writes").closest("details").open) showWrites();
  charts.draw(timeline, race);
}, CHARTS_MS);
setInterval(summarize, SUMMARY_MS);
controls.offer().catch((error) => { find("changed").textContent = error.message; });
connect();
watch(watched);
