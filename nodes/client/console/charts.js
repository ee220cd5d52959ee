// The charts beside the lanes, each with a table behind it that shows the same.

import * as services from "./services.js";
import { quantile, stale } from "./timeline.js";

const { uPlot } = window;
const STROKES = ["write", "applied", "stale", "missing", "muted"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [1, 4]];
const BINS = 24;
const POINTS = 41;
const PREDICTION_MS = 2000;

export class Charts {
  constructor(document) {
    this._document = document;
    this._plots = new Map();
    this._prediction = { asked: 0, until: null, stale: [] };
  }

  draw(timeline, race) {
    this._race(race);
    this._windows(timeline.windows());
    this._stale(timeline);
  }

  _race(race) {
    const names = race.names;
    this._plot("race", ["seconds ago", ...names], [race.seconds, ...names.map((name) => race.versions.get(name))], "version", {
      stepped: true,
    });
    const last = race.seconds.length - 1;
    table(this._document, "race-table", ["node", "version now"], names.map((name) => [name, race.versions.get(name)[last] ?? ""]));
  }

  _windows(windows) {
    const sorted = [...windows].sort((a, b) => a - b);
    const [low, high] = [sorted[0] ?? 0, sorted.at(-1) ?? 1];
    const width = Math.max(1, (high - low) / BINS);
    const counts = new Array(BINS + 1).fill(0);
    for (const one of sorted) counts[Math.min(BINS, Math.floor((one - low) / width))] += 1;
    const edges = counts.map((_, bin) => low + bin * width);
    this._plot("windows", ["window, ms", "writes"], [edges, counts], "writes", { bars: true });
    const shown = [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]].map(([name, q]) => [name, quantile(sorted, q)]);
    this._document.getElementById("percentiles").textContent = sorted.length
      ? `${sorted.length} windows in the last minute: ${shown.map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`).join(", ")}`
      : "No write has reached every replica in the last minute.";
    const rows = counts.map((count, bin) => [edges[bin].toFixed(1), (edges[bin] + width).toFixed(1), count]);
    table(this._document, "windows-table", ["from, ms", "to, ms", "writes"], sorted.length ? rows.filter((row) => row[2]) : []);
  }

  _stale(timeline) {
    const took = timeline.delaysSeen();
    const until = rounded(Math.max(100, took.at(-1) ?? 0, ...Object.values(timeline.delays).map((ms) => 1.5 * ms)));
    this._predict(timeline, until);
    const predicted = this._prediction.until === until ? this._prediction.stale : [];
    const points = stale(took, until, POINTS).map(([t, measured], step) => [t, measured, predicted[step] ?? null]);
    const labels = ["ms since the write", "measured", "predicted"];
    this._plot("stale", labels, labels.map((_, column) => points.map((point) => point[column])), "P(stale)", { range: [0, 1] });
    const shown = (share) => share?.toFixed(3) ?? "";
    table(this._document, "stale-table", labels, points.map(([t, measured, share]) => [t.toFixed(0), shown(measured), shown(share)]));
  }

  // Asked now and then, because a model may change without its mean, and drawn when it has come.
  _predict(timeline, until) {
    const now = performance.now();
    if (this._prediction.until === until && now - this._prediction.asked < PREDICTION_MS) return;
    if (this._prediction.until !== until) this._prediction.stale = [];
    Object.assign(this._prediction, { asked: now, until });
    services
      .prediction(Number(timeline.writesPerSecond().toPrecision(2)), until, POINTS)
      .then(({ body }) => { if (this._prediction.until === until) this._prediction.stale = body.stale; })
      .catch(() => { this._prediction.stale = []; });
  }

  _plot(id, labels, data, axis, { stepped = false, bars = false, range = null } = {}) {
    const place = this._document.getElementById(id);
    const width = Math.max(200, place.clientWidth);
    const height = 220;
    const known = this._plots.get(id);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const shape = JSON.stringify([labels, dark]);
    if (known && known.shape === shape) {
      if (known.width !== width) known.plot.setSize({ width, height });
      known.width = width;
      known.plot.setData(data);
      return;
    }
    known?.plot.destroy();
    const colour = (name) => getComputedStyle(place).getPropertyValue(`--${name}`).trim();
    const paths = bars ? uPlot.paths.bars({ size: [0.9] }) : stepped ? uPlot.paths.stepped({ align: 1 }) : undefined;
    const series = labels.slice(1).map((label, index) => ({
      label,
      paths,
      stroke: colour(STROKES[index % STROKES.length]),
      fill: bars ? colour("line") : undefined,
      dash: DASHES[index % DASHES.length],
      width: 2,
      points: { show: false },
    }));
    const grid = { stroke: colour("line"), width: 1 };
    const axes = [
      { label: labels[0], stroke: colour("ink"), grid },
      { label: axis, stroke: colour("ink"), grid, size: 60 },
    ];
    const scales = { x: { time: false }, y: range ? { range } : {} };
    const plot = new uPlot({ width, height, series: [{ label: labels[0] }, ...series], axes, scales, cursor: { show: false }, legend: { live: false } }, data, place);
    this._plots.set(id, { plot, shape, width });
  }
}

// The next number with one digit that is not 0.
function rounded(ms) {
  const unit = 10 ** Math.floor(Math.log10(ms));
  return Math.ceil(ms / unit) * unit;
}

// Rows of texts; whatever they are, they are shown as text.
export function table(document, id, headings, rows) {
  const element = document.getElementById(id);
  const cells = (tag, texts) =>
    texts.map((text) => {
      const cell = document.createElement(tag);
      if (tag === "th") cell.scope = "col";
      cell.textContent = text;
      return cell;
    });
  const line = (tag, texts) => {
    const row = document.createElement("tr");
    row.append(...cells(tag, texts));
    return row;
  };
  element.tHead.replaceChildren(line("th", headings));
  element.tBodies[0].replaceChildren(...rows.map((row) => line("td", row)));
}
