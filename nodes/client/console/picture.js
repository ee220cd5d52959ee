// What the picture of the lanes shows, apart from how it is drawn: one lane per node, each write as a mark with a line
// to each replica, and each acknowledgement as a line back to the primary. Time goes to the right, or downwards if turned.

import { ways } from "./ways.js";

const DRAWN_MAX = 400;
const TICKS = 5;
const PRIMARY_SHARE = 0.6; // of a replica's room; console.css gives the rows of the states the same shares

// `color` is a custom property of console.css; `fill` means that the shape is filled instead of stroked. Lengths are
// for a font of 16 px and grow with it.
export const STYLES = {
  lane: { color: "line", width: 1 },
  name: { color: "ink", size: 18, weight: 600 },
  tick: { color: "muted", size: 15 },
  applied: { color: "applied", width: 1.2 },
  "applied here": { color: "applied", fill: true },
  "in flight": { color: "write", width: 1.2, dash: [4, 4] },
  acknowledged: { color: "acknowledged", width: 0.8 }, // thinner than the write's line
  "acknowledgement in flight": { color: "acknowledged", width: 1.2, dash: [2, 3] }, // dots of less are hard to see
  "acknowledged here": { color: "acknowledged", width: 1.6 },
  write: { color: "write", fill: true },
  epoch: { color: "write", fill: true },
  fresh: { color: "fresh", fill: true },
  lost: { color: "stale", width: 2 },
  stale: { color: "stale", width: 2 },
  behind: { color: "stale", size: 15 },
  missing: { color: "missing", width: 2 },
  unknown: { color: "ink", size: 18, weight: 600 },
  "highlighted lane": { color: "spot", width: 4 },
};
// The marks of writes, in the order of drawing; those of highlighted ones are drawn above all others.
for (const style of ["acknowledged", "acknowledgement in flight", "acknowledged here", "applied", "applied here", "in flight", "write", "lost", "epoch"]) {
  STYLES[`highlighted ${style}`] = { ...STYLES[style], color: "spot", width: 3.5 };
}
const NONE = { nodes: new Set(), positions: new Set() };

// The picture of the time from `end - span` to `end`, which is the present if `isLive`, on `width` × `height` px with a
// font of `em` px. All coordinates are flat lists. `marks` are, in the order of drawing: {shape: "lines", ends: [x1, y1, x2,
// y2, …]}, {shape: "circles", centers: [x, y, …], radius}, {shape: "rects", boxes: [x, y, width, height, …]}, {shape:
// "polygons", polygons: [[x, y, …], …]} and {shape: "texts", texts: [[text, x, y], …]}, each with the name of its style.
// Those with `clipped` end at `clip`. `omitted` is the number of writes that are left out. `view.highlighted`: nodes and
// positions to highlight.
export function picture(timeline, { highlighted = NONE, ...view }) {
  const names = timeline.names();
  const scale = layout(["primary", ...names], view);
  const { drawn, omitted } = visible(timeline, names, view);
  const chosen = drawn.filter(({ position }) => highlighted.positions.has(position));
  const above = writeMarks(chosen, timeline, names, view, scale).map((mark) => ({ ...mark, style: `highlighted ${mark.style}` }));
  const events = [...writeMarks(drawn, timeline, names, view, scale), ...readMarks(timeline.reads, view, scale), ...above];
  const marks = [...frameMarks(names, highlighted.nodes, view, scale), ...events.map((mark) => ({ ...mark, clipped: true }))];
  return { marks: marks.filter(isShown), clip: scale.clip, unit: scale.unit, scale, omitted };
}

const isShown = ({ ends, centers, boxes, polygons, texts }) => (ends ?? centers ?? boxes ?? polygons ?? texts).length > 0;

// Where times and lanes are. `point(at, across)` is a time at a distance across the lanes.
function layout(lanes, { end, span, width, height, em, turned }) {
  const [length, depth] = turned ? [height, width] : [width, height];
  const unit = em / 16;
  const [first, last] = turned ? [2.2 * em, length - em] : [6.4 * em, length - 1.6 * em];
  const [near, far] = turned ? [3.4 * em, depth] : [0, depth - 1.8 * em]; // beyond: the times
  const primary = turned ? 1 : PRIMARY_SHARE; // turned, the states are elsewhere
  const room = (far - near) / (primary + lanes.length - 1);
  const across = new Map(lanes.map((lane, index) => [lane, near + room * (index ? primary + index - 0.5 : primary / 2)]));
  const along = (at) => first + ((last - first) * (at - (end - span))) / span;
  const point = (at, place) => (turned ? [place, along(at)] : [along(at), place]);
  const size = unit * (turned ? 5 : 7);
  const box = [first, 0, last - first + size, depth];
  return { across, along, point, first, last, size, unit, clip: turned ? [box[1], box[0], box[3], box[2]] : box };
}

function frameMarks(names, chosen, { end, span, isLive, height, em, turned }, { across, point }) {
  const lanes = ["primary", ...names];
  const ends = (lane) => [...point(end - span, across.get(lane)), ...point(end, across.get(lane))];
  const name = (lane) => {
    const text = lane.replace("lab14-", "");
    const [x, y] = point(end - span, across.get(lane));
    return turned ? [lanes.length > 3 ? text.replace("replica", "r") : text, x, y - em] : [text, x - 0.7 * em, y];
  };
  const tick = (number) => {
    const ago = (span * number) / TICKS;
    const text = number ? `−${(ago / 1000).toFixed(span < 1000 * TICKS ? 1 : 0)} s` : isLive ? "now" : "0 s";
    const [x, y] = point(end - ago, 0);
    return turned ? [text, 3 * em, y] : [text, x, height - 0.8 * em];
  };
  return [
    { shape: "lines", style: "lane", ends: lanes.flatMap(ends) },
    { shape: "lines", style: "highlighted lane", ends: lanes.filter((lane) => chosen.has(lane)).flatMap(ends) },
    { shape: "texts", style: "name", align: turned ? "center" : "right", texts: lanes.map(name) },
    { shape: "texts", style: "tick", align: turned ? "right" : "center", texts: Array.from({ length: TICKS + 1 }, (_, number) => tick(number)) },
  ];
}

// One mark per kind, because drawing each write's separately is slow.
function writeMarks(drawn, timeline, names, view, { across, point, size, unit }) {
  const changes = drawn.filter(({ op }) => op !== "epoch");
  const { end } = view;
  const found = { applied: { arrived: [], under: [] }, acknowledged: { arrived: [], under: [] } };
  const top = across.get("primary");
  for (const write of changes) {
    for (const name of names) {
      for (const { kind, from, to, share } of ways(timeline, write, name, end)) {
        const [start, goal] = kind === "applied" ? [top, across.get(name)] : [across.get(name), top];
        if (to === null) found[kind].under.push(...point(from, start), ...point(end, start + (goal - start) * share));
        else found[kind].arrived.push(...point(from, start), ...point(to, goal));
      }
    }
  }
  const { applied, acknowledged } = found;
  const epochs = drawn.filter(({ op }) => op === "epoch").flatMap(({ at_ms: at }) => line(point(at, 0), point(at, Math.max(...across.values()) + 20 * unit), unit));
  return [
    { shape: "lines", style: "acknowledged", ends: acknowledged.arrived },
    { shape: "lines", style: "acknowledgement in flight", ends: acknowledged.under },
    { shape: "circles", style: "acknowledged here", centers: goals(acknowledged.arrived), radius: size * 0.6 },
    { shape: "lines", style: "applied", ends: applied.arrived },
    { shape: "rects", style: "applied here", boxes: squares(goals(applied.arrived), size) },
    { shape: "lines", style: "in flight", ends: applied.under },
    { shape: "circles", style: "write", centers: changes.flatMap(({ at_ms: at }) => point(at, top)), radius: size * 0.7 },
    { shape: "lines", style: "lost", ends: changes.filter(({ lost_ms: at }) => at <= end).flatMap(({ at_ms: at }) => stroke(point(at, top), size)) },
    { shape: "rects", style: "epoch", boxes: epochs },
  ];
}

// The box of a line along an axis.
const line = ([x1, y1], [x2, y2], half) => [x1 - (x1 === x2 ? half : 0), y1 - (y1 === y2 ? half : 0), Math.max(2 * half, x2 - x1), Math.max(2 * half, y2 - y1)];

// A line across a write's mark.
const stroke = ([x, y], size) => [x - size, y + 1.6 * size, x + size, y - 1.6 * size];

// The end of each line.
const goals = (ends) => ends.filter((_, index) => index % 4 > 1);

function squares(centers, size) {
  const boxes = [];
  for (let at = 0; at < centers.length; at += 2) boxes.push(centers[at] - size / 2, centers[at + 1] - size / 2, size, size);
  return boxes;
}

// Beside the lane: a cross for a stale read, a question mark if its staleness is unknown, a diamond for a missing key, a
// triangle for a fresh read. A read without a key is one of the node's version.
function readMarks(reads, { end, span, turned }, { across, point, size }) {
  const found = { stale: [], unknown: [], missing: [], fresh: [], behind: [] };
  for (const { at_ms: at, source, key, behind, version } of reads) {
    if (at < end - span || at > end) continue;
    const place = (across.get(source) ?? across.get("primary")) - 2 * size;
    const [x, y] = point(at, place);
    const [left, right, top, bottom] = [x - size, x + size, y - size, y + size];
    if (behind) {
      found.stale.push(left, top, right, bottom, left, bottom, right, top);
      found.behind.push([`−${behind}`, ...point(at, place - (turned ? 1.4 : 2.5) * size)]);
    } else if (behind === null) found.unknown.push(["?", x, y]);
    else if (key !== null && version === 0) found.missing.push(left, y, x, top, x, top, right, y, right, y, x, bottom, x, bottom, left, y);
    else found.fresh.push([x, top, right, bottom, left, bottom]);
  }
  return [
    { shape: "polygons", style: "fresh", polygons: found.fresh },
    { shape: "lines", style: "missing", ends: found.missing },
    { shape: "texts", style: "unknown", align: "center", texts: found.unknown },
    { shape: "lines", style: "stale", ends: found.stale },
    { shape: "texts", style: "behind", align: turned ? "right" : "center", texts: found.behind },
  ];
}

// The newest writes with something to draw, at most DRAWN_MAX, and the number of older ones omitted.
function visible(timeline, names, { end, span }) {
  const drawn = [];
  let omitted = 0;
  for (let index = timeline.list.length - 1; index >= 0; index -= 1) {
    const write = timeline.list[index];
    if (write.at_ms > end) continue;
    const landed = (name) => ways(timeline, write, name, end).every(({ to }) => to !== null && to < end - span);
    if (write.at_ms < end - span && names.every(landed)) break; // so have all older writes
    if (drawn.length < DRAWN_MAX) drawn.push(write);
    else omitted += 1;
  }
  return { drawn, omitted };
}
