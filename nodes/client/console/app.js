// Takes the messages of GET /events and draws the moment shown.

import * as cards from "./cards.js";
import * as charts from "./charts.js";
import * as controls from "./controls.js";
import { fillTable, find, versionsBehind } from "./dom.js";
import { listen } from "./feed.js";
import * as lanes from "./lanes.js";
import * as losses from "./losses.js";
import * as moment from "./moment.js";
import * as panels from "./panels.js";
import * as playback from "./playback.js";
import { LOST } from "./progress.js";
import * as scenes from "./scenes.js";
import * as services from "./services.js";
import * as sharing from "./sharing.js";
import { numbersAt } from "./standing.js";
import * as strip from "./strip.js";

const FRAME_MS = 100;
const STATE_MS = 1000;
const CHARTS_MS = 250;
const SLOW_CHARTS_MS = 10; // charts that take longer are drawn once a second
const SUMMARY_MS = 5000;
const ROWS = 20;
const SLOW_FRAME_MS = 4; // frames that take longer are drawn at half the rate

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const parameters = new URLSearchParams(location.search);
const values = new Map(); // by node: its value of the watched key at present
let watched = controls.key();

function showConnection(state, text) {
  find("connection").dataset.state = state;
  find("connection").textContent = text;
}

const showError = (error) => { find("changed").textContent = error.message; };

// What to draw, and until when. Nothing that draws asks for the time or the live timeline elsewhere.
export const shown = () => moment.shown();
const span = () => Number(find("span").value);

function take(text) {
  const message = moment.take(text);
  const names = moment.live.names();
  if (names.length) controls.replicas(names);
  for (const event of message.events ?? []) if (event.kind === "settings") controls.showSettings(event.replica, JSON.parse(event.settings));
  const touched = [...(message.writes ?? []), ...(message.applied ?? [])].map(({ position }) => moment.live.writes.get(position));
  if (touched.some((write) => write?.key === watched || write?.op === "epoch")) refresh();
}

function watch(key) {
  watched = key;
  values.clear();
  refresh();
}

// Query every node's value of the watched key, one query at a time.
let asking = false;
let again = false;
async function refresh() {
  again = asking;
  if (asking || !watched) return;
  asking = true;
  try {
    const key = watched;
    const { nodes } = (await services.everywhere(key)).body;
    if (key === watched) for (const [node, found] of Object.entries(nodes)) values.set(node, valueText(found));
  } catch {
    values.clear();
  }
  asking = false;
  if (again) refresh();
}

const valueText = ({ error, version, value }) => error ?? (version ? short(JSON.stringify(value)) : "no such key");
const short = (text) => (text.length > 60 ? `${text.slice(0, 60)}…` : text);

function showNow() {
  const { timeline, end } = shown();
  if (end !== null) cards.draw(timeline, numbersAt(end, moment.isLive()), short(watched), moment.isLive() ? values : new Map());
}

function showWrites() {
  const { timeline } = shown();
  const names = timeline.names();
  const progress = (write, name, kind, pending) =>
    write[kind].has(name) ? `${(write[kind].get(name) - write.at_ms).toFixed(1)} ms` : write.lost_ms ? LOST : timeline.has(name, write, kind) ? kind : pending;
  const rows = timeline.list.slice(-ROWS).reverse().map((write) => [
    write.position,
    write.op === "epoch" ? "new epoch" : short(write.key),
    ...names.flatMap((name) => [
      progress(write, name, "applied", "in flight"),
      progress(write, name, "acknowledged", timeline.has(name, write) ? "on its way back" : ""),
    ]),
  ]);
  fillTable("writes", ["position", "key", ...names.flatMap((name) => [`${name} applied`, `${name} acknowledged`])], rows);
}

function summarize() {
  const { timeline } = shown();
  const states = timeline.names().map((name) => timeline.replicas.get(name));
  if (!states.length || moment.isPaused()) return;
  const behind = states.filter((state) => state.lag_versions).map((state) => `${state.replica_id} is ${versionsBehind(state.lag_versions)}`);
  const text = behind.join("; ") || "All replicas are up to date.";
  if (find("summary").textContent !== text) find("summary").textContent = text; // a screen reader announces each change
}

function drawLanes() {
  const { timeline, end } = shown();
  if (end === null) return;
  const omitted = lanes.draw(timeline, { end, span: span() * 1000 });
  strip.draw(timeline, end);
  losses.draw(timeline, end);
  find("left-out").hidden = !omitted;
  find("left-out").textContent = `${omitted} older writes are not drawn.`;
}

let drawn = 0;
let took = 0;
setInterval(() => {
  const started = performance.now();
  const rest = reducedMotion.matches ? 1000 : took > SLOW_FRAME_MS ? 2 * FRAME_MS : 0;
  if (document.hidden || started - drawn < rest) return;
  drawn = started;
  drawLanes();
  took = performance.now() - started;
}, FRAME_MS);
setInterval(() => {
  if (document.hidden) return;
  showNow();
  if (find("writes").closest("details").open) showWrites();
}, STATE_MS);
let charted = 0;
let charting = 0;
setInterval(() => {
  const started = performance.now();
  const rest = reducedMotion.matches || charting > SLOW_CHARTS_MS ? STATE_MS : 0;
  if (document.hidden || started - charted < rest) return;
  charted = started;
  const { timeline, end } = shown();
  charts.draw(timeline, end);
  charting = performance.now() - started;
}, CHARTS_MS);
setInterval(summarize, SUMMARY_MS);

function startLive() {
  const staging = { timeline: moment.live, pace: Number(parameters.get("pace") ?? 1) };
  scenes.start(staging);
  controls.start({ watched: watch, hasSentinels: () => scenes.offerLog(staging) });
  controls.offer().catch(showError);
  listen({ take, showConnection, at: asked.at, span });
  watch(watched);
}

const asked = moment.asked(location.search);
if ([...find("span").options].some(({ value }) => value === parameters.get("span"))) find("span").value = parameters.get("span");
find("notice").textContent = asked.error ?? "";
moment.start(() => { drawLanes(); showNow(); });
panels.start();
sharing.start(span);
if (parameters.has("replay")) playback.start(asked.at, showConnection);
else startLive();
