// The charts, each with a table of the same data.

import { color, DELAY_MS_MAX, fillTable, find } from "./dom.js";
import * as services from "./services.js";
import { quantile, stale } from "./timeline.js";

const { uPlot } = window;
const STROKES = ["write", "applied", "stale", "missing", "muted"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [1, 4]];
const BINS = 24;
const POINTS = 41;
const PREDICTION_MS = 2000; // between two requests for a prediction
const HEIGHT = 220;
const plots = new Map();
const prediction = { requested: 0, until: null, stale: [] };

export function draw(timeline, race) {
  drawRace(race);
  drawWindows(timeline.windows());
  drawStale(timeline);
}

function drawRace({ names, seconds, versions }) {
  plot("race", ["seconds ago", ...names], [seconds, ...versions], "version", { stepped: true });
  fillTable("race-table", ["node", "current version"], names.map((name, index) => [name, versions[index].at(-1)]));
}

function drawWindows(windows) {
  const sorted = windows.sort((a, b) => a - b);
  const [low, high] = [sorted[0] ?? 0, sorted.at(-1) ?? 1];
  const width = Math.max(1, (high - low) / BINS);
  const counts = new Array(BINS + 1).fill(0);
  for (const ms of sorted) counts[Math.min(BINS, Math.floor((ms - low) / width))] += 1;
  const edges = counts.map((_, bin) => low + bin * width);
  plot("windows", ["window (ms)", "writes"], [edges, counts], "writes", { bars: true });
  const percentiles = [50, 95, 99].map((percent) => `p${percent} ${quantile(sorted, percent / 100)?.toFixed(1)} ms`);
  find("percentiles").textContent = sorted.length
    ? `${sorted.length} windows in the last minute: ${percentiles.join(", ")}`
    : "No write has reached every replica in the last minute.";
  const rows = counts.map((count, bin) => [edges[bin].toFixed(1), (edges[bin] + width).toFixed(1), count]);
  fillTable("windows-table", ["from (ms)", "to (ms)", "writes"], rows.filter(([, , count]) => count));
}

function drawStale(timeline) {
  const delays = timeline.delaysSeen();
  const longest = Math.max(100, delays.at(-1) ?? 0, ...Object.values(timeline.delays).map((ms) => 1.5 * ms));
  const until = Math.min(DELAY_MS_MAX, roundUp(longest));
  predict(timeline, until);
  const points = stale(delays, until, POINTS).map(([t, measured], step) => [t, measured, prediction.stale[step] ?? null]);
  const labels = ["ms since the write", "measured", "predicted"];
  plot("stale", labels, labels.map((_, column) => points.map((point) => point[column])), "P(stale)", { range: [0, 1] });
  fillTable("stale-table", labels, points.map(([t, ...shares]) => [t.toFixed(0), ...shares.map((share) => share?.toFixed(3))]));
}

// Refreshed periodically, because a delay model can change while its mean stays the same.
function predict(timeline, until) {
  const now = performance.now();
  if (prediction.until === until && now - prediction.requested < PREDICTION_MS) return;
  if (prediction.until !== until) prediction.stale = [];
  Object.assign(prediction, { requested: now, until });
  services
    .prediction(Number(timeline.writesPerSecond().toPrecision(2)), until, POINTS)
    .then(({ body }) => { if (prediction.until === until) prediction.stale = body.stale; })
    .catch(() => { prediction.stale = []; });
}

function plot(id, labels, data, axis, { stepped = false, bars = false, range = null } = {}) {
  const place = find(id);
  const width = Math.max(200, place.clientWidth);
  const known = plots.get(id);
  const shape = JSON.stringify([labels, matchMedia("(prefers-color-scheme: dark)").matches]);
  if (known?.shape === shape) {
    if (known.plot.width !== width) known.plot.setSize({ width, height: HEIGHT });
    known.plot.setData(data);
    return;
  }
  known?.plot.destroy();
  const series = labels.slice(1).map((label, index) => ({
    label,
    paths: bars ? uPlot.paths.bars({ size: [0.9] }) : stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
    stroke: color(place, STROKES[index % STROKES.length]),
    fill: bars ? color(place, "line") : undefined,
    dash: DASHES[index % DASHES.length],
    width: 2,
    points: { show: false },
  }));
  const line = { stroke: color(place, "ink"), grid: { stroke: color(place, "line"), width: 1 } };
  const axes = [{ label: labels[0], ...line }, { label: axis, ...line, size: 60 }];
  const options = { width, height: HEIGHT, series: [{ label: labels[0] }, ...series], axes, cursor: { show: false }, legend: { live: false } };
  options.scales = { x: { time: false }, y: range ? { range } : {} };
  plots.set(id, { plot: new uPlot(options, data, place), shape });
}

// Round up to one significant digit.
function roundUp(ms) {
  const unit = 10 ** Math.floor(Math.log10(ms));
  return Math.ceil(ms / unit) * unit;
}
