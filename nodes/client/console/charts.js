// The charts, each with a table of the same data.

import { color, DELAY_MS_MAX, element, fillTable, find } from "./dom.js";
import { aligned, race } from "./race.js";
import * as services from "./services.js";
import { kaplanMeier, meanBeyond, percentile } from "./survival.js";

const { uPlot } = window;
const STROKES = ["write", "applied", "stale", "missing", "muted"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [1, 4]];
const BINS = 24;
const POINTS = 41;
const RACE_SECONDS = 30;
const WHOLE = Array.from({ length: 15 }, (_, digits) => [1, 2, 5].map((digit) => digit * 10 ** digits)).flat(); // steps of an axis
const ROWS = 40; // of the table of the race
const PREDICTION_MS = 2000; // between two requests for a prediction
const plots = new Map();
const prediction = { requested: 0, until: null, stale: [], error: null };

// `end`: the present, or when the picture was paused.
export function draw(timeline, end) {
  if (end === null) return;
  drawRace(timeline, end);
  drawWindows(timeline.windows());
  drawStale(timeline);
}

function drawRace(timeline, end) {
  const points = race(timeline);
  const names = [...points.keys()];
  const { times, versions } = aligned(points, end - RACE_SECONDS * 1000, end, (name) => timeline.knownUntil(name));
  const seconds = times.map((at) => (at - end) / 1000);
  const rows = seconds.map((second, index) => [Math.abs(second).toFixed(3), ...versions.map((known) => known[index] ?? "unknown")]);
  fillTable("race-table", ["seconds ago", ...names], rows.slice(-ROWS).reverse());
  if (versions.flat().every((version) => version === null)) return say("race", "No version is known yet: a write will show on the primary first.");
  plot("race", ["seconds ago", ...names], [seconds, ...versions], "version", { stepped: true, range: wholeRange, incrs: WHOLE, across: [-RACE_SECONDS, 0] });
}

function drawWindows({ ended, censored, onTheirWay }) {
  const curve = kaplanMeier(ended, censored);
  const waiting = `${onTheirWay} write${onTheirWay === 1 ? " is" : "s are"} still on the way`;
  const percentiles = [50, 95, 99].map((percent) => `p${percent} ${inMs(percentile(curve, percent / 100))}`);
  find("percentiles").textContent = `${ended.length} windows in the last minute${ended.length ? `: ${percentiles.join(", ")}` : ""}; ${waiting}.`;
  const { bins, width, unknown } = histogram(curve);
  const rows = bins.filter(([, share]) => share).map(([from, share]) => [from.toFixed(1), (from + width).toFixed(1), percentText(share)]);
  if (unknown && curve.count) rows.push([curve.until.toFixed(1), "unknown", percentText(unknown)]);
  fillTable("windows-table", ["from (ms)", "to (ms)", "share of writes"], rows);
  if (!ended.length) return say("windows", "No write has reached every replica in the last minute.");
  const places = [...bins.map(([from]) => from + width / 2), bins.at(-1)[0] + 2.5 * width];
  const known = [...bins.map(([, share]) => 100 * share || null), null];
  const rest = [...bins.map(() => null), unknown ? 100 * unknown : null];
  plot("windows", ["window (ms)", "complete", "longer than observed"], [places, known, rest], "% of writes", { bars: true, range: fromZero, across: [places[0] - width, places.at(-1) + width] });
}

// [start, share of the writes] of evenly wide bins, and the share of the writes whose window is longer than observed.
function histogram({ times, shares }) {
  const [low, high] = [times[0] ?? 0, times.at(-1) ?? 1];
  const width = Math.max(1, (high - low) / BINS);
  const bins = Array.from({ length: BINS }, (_, bin) => [low + bin * width, 0]);
  times.forEach((ms, index) => { bins[Math.min(BINS - 1, Math.floor((ms - low) / width))][1] += (shares[index - 1] ?? 1) - shares[index]; });
  return { bins, width, unknown: shares.at(-1) ?? 1 };
}

const inMs = (ms) => (ms === null ? "unknown" : `${ms.toFixed(1)} ms`);
const percentText = (share) => `${(100 * share).toFixed(1)} %`;

function drawStale(timeline) {
  const seen = timeline.delaysSeen();
  const longest = [...seen.values()].flatMap(({ ended }) => ended).reduce((one, other) => Math.max(one, other), 100);
  const until = Math.min(DELAY_MS_MAX, roundUp(Math.max(longest, ...Object.values(timeline.delays).map((ms) => 1.5 * ms))));
  predict(timeline, until);
  const curves = [...seen].map(([name, { ended, censored }]) => [name, kaplanMeier(ended, censored)]);
  const points = Array.from({ length: POINTS }, (_, step) => stalePoint(curves, (until * step) / (POINTS - 1), prediction.stale[step] ?? null));
  const labels = ["ms since the write", "measured", "predicted", "unknown"];
  const rows = points.map(({ t, low, high, predicted }) => [t.toFixed(0), low === high ? low.toFixed(3) : `unknown: ${low.toFixed(3)} to ${high.toFixed(3)}`, predicted?.toFixed(3)]);
  fillTable("stale-table", labels.slice(0, 3), curves.length ? rows : []);
  find("stale-note").textContent = staleText(curves);
  if (!curves.some(([, { count }]) => count) && !prediction.stale.length) return say("stale", "No write has been observed in the last minute.");
  const columns = ["t", "measured", "predicted", "high", "low"].map((column) => points.map((point) => point[column]));
  const isKnown = (index) => points[index] === undefined || points[index].low === points[index].high;
  for (const column of columns.slice(3)) {
    // The band of what is unknown begins where the measured line ends.
    points.forEach((_, index) => { if (isKnown(index) && isKnown(index + 1)) column[index] = null; });
  }
  plot("stale", [...labels, " "], columns, "P(stale)", {
    range: [0, 1],
    strokes: ["write", "applied", "muted", "muted"],
    dashes: [DASHES[0], DASHES[1], DASHES[4], DASHES[4]],
    bands: [{ series: [3, 4], fill: color(find("stale"), "line") }],
  });
}

function stalePoint(curves, t, predicted) {
  const [low, high] = curves.length ? meanBeyond(curves.map(([, curve]) => curve), t) : [0, 1];
  return { t, low, high, measured: low === high ? low : null, predicted };
}

function staleText(curves) {
  const unseen = curves.filter(([, { count }]) => !count).map(([name]) => name);
  const parts = unseen.length ? [`No write to ${unseen.join(", ")} has been observed in the last minute.`] : [];
  if (prediction.error) parts.push(`No prediction: ${prediction.error}`);
  return parts.join(" ");
}

// Refreshed periodically, because a delay model can change while its mean stays the same.
function predict(timeline, until) {
  const now = performance.now();
  if (prediction.until === until && now - prediction.requested < PREDICTION_MS) return;
  if (prediction.until !== until) prediction.stale = [];
  Object.assign(prediction, { requested: now, until });
  if (services.locked()) return Object.assign(prediction, { stale: [], error: "it needs the admin token." });
  services
    .prediction(Number(timeline.writesPerSecond().toPrecision(2)), until, POINTS)
    .then(({ body }) => { if (prediction.until === until) Object.assign(prediction, { stale: body.stale, error: null }); })
    .catch(({ message }) => Object.assign(prediction, { stale: [], error: message }));
}

// Say in words why there is no chart.
function say(id, words) {
  plots.get(id)?.plot.destroy();
  plots.delete(id);
  find(id).replaceChildren(element("p", { textContent: words, className: "note" }));
}

function plot(id, labels, data, axis, { stepped = false, bars = false, range = null, across = null, bands = [], strokes = STROKES, dashes = DASHES, incrs = null } = {}) {
  const place = find(id);
  const em = parseFloat(getComputedStyle(place).fontSize);
  const known = plots.get(id);
  const shape = JSON.stringify([em, labels, across, matchMedia("(prefers-color-scheme: dark)").matches]);
  if (known?.shape === shape) {
    fit(known.plot, place);
    known.plot.setData(data);
    return;
  }
  known?.plot.destroy();
  place.replaceChildren();
  const series = labels.slice(1).map((label, index) => ({
    label,
    paths: bars ? uPlot.paths.bars({ size: [0.9] }) : stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
    stroke: color(place, strokes[index % strokes.length]),
    fill: bars ? color(place, index ? "soft" : "line") : undefined,
    dash: dashes[index % dashes.length].map((length) => (length * em) / 14),
    width: em / 8,
    points: { show: false },
  }));
  const font = `${em}px system-ui, sans-serif`;
  const line = { stroke: color(place, "ink"), grid: { stroke: color(place, "line"), width: em / 16 }, ticks: { size: em / 3 }, font, labelFont: font, labelSize: 1.4 * em, gap: em / 4, values: (_, splits) => splits.map(numberText) };
  const axes = [{ label: labels[0], ...line, size: 1.8 * em, space: 3.5 * em }, { label: axis, ...line, size: 3 * em, space: 2 * em, ...(incrs && { incrs }) }];
  const options = { width: place.clientWidth, height: place.clientHeight, padding: [em / 2, 1.5 * em, 0, 0], series: [{ label: labels[0] }, ...series], axes, bands, cursor: { show: false }, legend: { live: false } };
  options.scales = { x: { time: false, ...(across && { range: across }) }, y: range ? { range } : {} };
  const made = new uPlot(options, data, place);
  plots.set(id, { plot: made, shape });
  // A series without a name is not in the legend.
  for (const row of made.root.querySelectorAll(".u-series")) row.hidden = !row.querySelector(".u-label").textContent.trim();
  fit(made, place);
}

// Fill the place, in which the legend is below the plot.
function fit(plot, place) {
  const size = { width: place.clientWidth, height: place.clientHeight - plot.root.querySelector(".u-legend").offsetHeight };
  if (plot.width !== size.width || plot.height !== size.height) plot.setSize(size);
}

export const numberText = (number) => (number === null ? null : String(Number(number.toFixed(3)) + 0).replace("-", "−"));
// Whole numbers around the least and the greatest version, at least two apart.
const wholeRange = (_, least, greatest) => [Math.max(0, Math.floor(least) - 1), Math.ceil(greatest) + 1];
const fromZero = (_, __, greatest) => [0, greatest * 1.05];

// Round up to one significant digit.
function roundUp(ms) {
  const unit = 10 ** Math.floor(Math.log10(ms));
  return Math.ceil(ms / unit) * unit;
}
