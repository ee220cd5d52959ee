// The timeline picture: one lane per node, time to the right, each write as a mark with a line to each replica, and each
// acknowledgement as a line back to the primary.

import { color, find } from "./dom.js";
import { ways } from "./ways.js";

const DRAWN_MAX = 400;
const MARGIN = { left: 130, right: 24, top: 24, bottom: 30 };
const canvas = find("lanes");
const pen = canvas.getContext("2d");

// Draw the time from `end - span` to `end`. Returns the number of writes that were not drawn.
export function draw(timeline, { end, span, now }) {
  const { width, height } = fit();
  const names = timeline.names();
  const narrow = width < 560;
  const left = narrow ? 74 : MARGIN.left;
  const right = width - MARGIN.right;
  const lanes = ["primary", ...names];
  const y = (lane) => MARGIN.top + ((height - MARGIN.top - MARGIN.bottom) * lanes.indexOf(lane)) / Math.max(1, lanes.length - 1);
  const x = (at) => left + ((right - left) * (at - (end - span))) / span;
  const size = Math.max(4, Math.min(8, width / 160));
  Object.assign(canvas.dataset, { left, right, top: MARGIN.top, startMs: end - span, endMs: end }); // the scale

  pen.clearRect(0, 0, width, height);
  pen.font = `${narrow ? 12 : 15}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  setColor("line");
  pen.lineWidth = 1;
  lines(lanes.flatMap((lane) => [left, y(lane), right, y(lane)]));
  setColor("ink");
  pen.textAlign = "right";
  for (const lane of lanes) {
    const name = lane.replace("lab14-", "");
    pen.fillText(narrow ? name.replace("replica", "r") : name, left - 10, y(lane));
  }
  setColor("muted");
  pen.textAlign = "center";
  for (let tick = 0; tick <= 5; tick += 1) {
    const ago = (span * tick) / 5;
    pen.fillText(tick ? `−${(ago / 1000).toFixed(span < 5000 ? 1 : 0)} s` : "now", x(end - ago), height - 10);
  }

  pen.save();
  pen.beginPath();
  pen.rect(left, 0, right - left + size, height);
  pen.clip();
  const { drawn, omitted } = visible(timeline, names, end, span);
  drawWrites(drawn, { timeline, names, end: Math.min(end, now), x, y, size });
  for (const read of timeline.reads) {
    if (read.at_ms < end - span || read.at_ms > end) continue;
    drawRead(read, x(read.at_ms), y(lanes.includes(read.source) ? read.source : "primary") - size * 2, size);
  }
  pen.restore();
  return omitted;
}

// One path per kind of mark, because stroking each mark separately is slow. Path2D objects are avoided because the
// browser frees their memory late.
function drawWrites(writes, { timeline, names, end, x, y, size }) {
  const paths = { applied: { arrived: [], under: [] }, acknowledged: { arrived: [], under: [] } };
  const top = y("primary");
  for (const write of writes.filter(({ op }) => op !== "epoch")) {
    for (const name of names) {
      for (const { kind, from, to, share } of ways(timeline, write, name, end)) {
        const [start, goal] = kind === "applied" ? [top, y(name)] : [y(name), top];
        if (to === null) paths[kind].under.push(x(from), start, x(end), start + (goal - start) * share);
        else paths[kind].arrived.push(x(from), start, x(to), goal);
      }
    }
  }
  drawAcknowledged(paths.acknowledged, size);
  drawApplied(paths.applied, size);
  const at = ({ at_ms: ms }) => x(ms);
  drawCommitted(writes.filter(({ op }) => op !== "epoch").map(at), top, size);
  pen.beginPath();
  for (const write of writes.filter(({ op }) => op === "epoch")) pen.rect(at(write) - 1, 0, 2, y(names.at(-1) ?? "primary") + 20);
  pen.fill();
}

function drawApplied({ arrived, under }, size) {
  pen.lineWidth = 1.2;
  setColor("applied");
  lines(arrived);
  pen.beginPath();
  for (const [x, y] of goals(arrived)) pen.rect(x - size / 2, y - size / 2, size, size);
  pen.fill();
  setColor("write");
  dashed([4, 4], under);
}

// Thinner than the write's line; a ring where it has arrived, and an open end while it is on its way.
function drawAcknowledged({ arrived, under }, size) {
  setColor("acknowledged");
  pen.lineWidth = 0.8;
  lines(arrived);
  pen.lineWidth = 1.2; // dots of less are hard to see
  dashed([2, 3], under);
  pen.lineWidth = 1.6;
  circles(goals(arrived), size * 0.6);
  pen.stroke();
}

function drawCommitted(starts, top, size) {
  setColor("write");
  circles(starts.map((x) => [x, top]), size * 0.7);
  pen.fill();
}

// A cross for a stale read, a diamond for a missing key, a triangle for a fresh read.
function drawRead(read, x, y, size) {
  const kind = read.behind ? "stale" : read.version === 0 ? "missing" : "fresh";
  const [left, right, top, bottom] = [x - size, x + size, y - size, y + size];
  setColor(kind);
  pen.lineWidth = 2;
  if (kind === "stale") {
    lines([left, top, right, bottom, left, bottom, right, top]);
    pen.textAlign = "left";
    pen.fillText(`−${read.behind}`, right + 3, y);
  } else if (kind === "missing") {
    lines([x, top, right, y, right, y, x, bottom, x, bottom, left, y, left, y, x, top]);
  } else {
    pen.beginPath();
    pen.moveTo(x, top);
    pen.lineTo(right, bottom);
    pen.lineTo(left, bottom);
    pen.fill();
  }
}

// `ends` is flat: x1, y1, x2, y2 of each line.
function lines(ends) {
  pen.beginPath();
  for (let at = 0; at < ends.length; at += 4) {
    pen.moveTo(ends[at], ends[at + 1]);
    pen.lineTo(ends[at + 2], ends[at + 3]);
  }
  pen.stroke();
}

function dashed(dashes, ends) {
  pen.setLineDash(dashes);
  lines(ends);
  pen.setLineDash([]);
}

// The end of each line.
const goals = (ends) => Array.from({ length: ends.length / 4 }, (_, line) => ends.slice(4 * line + 2, 4 * line + 4));

function circles(centers, radius) {
  pen.beginPath();
  for (const [x, y] of centers) {
    pen.moveTo(x + radius, y);
    pen.arc(x, y, radius, 0, 2 * Math.PI);
  }
}

function setColor(name) {
  pen.strokeStyle = pen.fillStyle = color(canvas, name);
}

function fit() {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { width, height };
}

// The newest writes with something to draw, at most DRAWN_MAX, and the number of older ones omitted.
function visible(timeline, names, end, span) {
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
