// Draws the picture of the lanes on the canvas.

import { find } from "./dom.js";
import { highlighted } from "./highlight.js";
import { isLive } from "./moment.js";
import { picture, STYLES } from "./picture.js";

const canvas = find("lanes");
const pen = canvas.getContext("2d");

// The view of the time from `end - span` to `end` on the canvas, whose orientation and font are those of console.css.
export function view({ end, span }) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const look = getComputedStyle(canvas);
  return { end, span, isLive: isLive(), highlighted, width, height, em: parseFloat(look.fontSize), turned: look.getPropertyValue("--turned") === "1" };
}

// Returns the number of writes that were not drawn.
export function draw(timeline, times) {
  const shown = view(times);
  const { marks, clip, unit, scale, omitted } = picture(timeline, shown);
  const { first, last, across } = scale;
  Object.assign(canvas.dataset, { left: first, right: last, top: across.get("primary"), startMs: times.end - times.span, endMs: times.end });
  canvas.dataset.lanes = [...across.values()];
  fit(shown);
  pen.clearRect(0, 0, shown.width, shown.height);
  paint(marks.filter(({ clipped }) => !clipped), unit);
  pen.save();
  pen.beginPath();
  pen.rect(...clip);
  pen.clip();
  paint(marks.filter(({ clipped }) => clipped), unit);
  pen.restore();
  return omitted;
}

function fit({ width, height }) {
  const ratio = window.devicePixelRatio || 1;
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
}

function paint(marks, unit) {
  const look = getComputedStyle(canvas);
  for (const mark of marks) {
    const { color, width = 1, dash = [], size = 16, weight = 400, fill } = STYLES[mark.style];
    pen.strokeStyle = pen.fillStyle = look.getPropertyValue(`--${color}`).trim();
    if (mark.shape === "texts") {
      Object.assign(pen, { font: `${weight} ${size * unit}px system-ui, sans-serif`, textAlign: mark.align, textBaseline: "middle" });
      for (const text of mark.texts) pen.fillText(...text);
      continue;
    }
    pen.lineWidth = width * unit;
    pen.setLineDash(dash.map((length) => length * unit));
    // Path2D objects are avoided because the browser frees their memory late.
    pen.beginPath();
    TRACE[mark.shape](mark);
    if (fill) pen.fill();
    else pen.stroke();
  }
  pen.setLineDash([]);
}

const TRACE = {
  lines({ ends }) {
    for (let at = 0; at < ends.length; at += 4) {
      pen.moveTo(ends[at], ends[at + 1]);
      pen.lineTo(ends[at + 2], ends[at + 3]);
    }
  },
  circles({ centers, radius }) {
    for (let at = 0; at < centers.length; at += 2) {
      pen.moveTo(centers[at] + radius, centers[at + 1]);
      pen.arc(centers[at], centers[at + 1], radius, 0, 2 * Math.PI);
    }
  },
  rects({ boxes }) {
    for (let at = 0; at < boxes.length; at += 4) pen.rect(boxes[at], boxes[at + 1], boxes[at + 2], boxes[at + 3]);
  },
  polygons({ polygons }) {
    for (const [x, y, ...rest] of polygons) {
      pen.moveTo(x, y);
      for (let at = 0; at < rest.length; at += 2) pen.lineTo(rest[at], rest[at + 1]);
      pen.closePath();
    }
  },
};
