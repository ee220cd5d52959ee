// Space and time: a lane per node, time to the right, each write as a mark and its ways to the replicas.

const DRAWN_MAX = 400;
const MARGIN = { left: 130, right: 24, top: 24, bottom: 30 };

export class Lanes {
  constructor(canvas) {
    this._canvas = canvas;
    this._context = canvas.getContext("2d");
  }

  // Draw the time from `end - span` to `end`; returns how many writes were left out.
  draw(timeline, { end, span, now }) {
    const { width, height } = this._fit();
    const pen = this._context;
    const colour = (name) => getComputedStyle(this._canvas).getPropertyValue(`--${name}`).trim();
    const names = timeline.names();
    const narrow = width < 560;
    const left = narrow ? 74 : MARGIN.left;
    const lanes = ["primary", ...names];
    const y = (lane) => MARGIN.top + ((height - MARGIN.top - MARGIN.bottom) * lanes.indexOf(lane)) / Math.max(1, lanes.length - 1);
    const x = (at) => left + ((width - left - MARGIN.right) * (at - (end - span))) / span;
    const size = Math.max(4, Math.min(8, width / 160));

    pen.clearRect(0, 0, width, height);
    pen.font = `${narrow ? 12 : 15}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    for (const lane of lanes) {
      pen.strokeStyle = colour("line");
      pen.lineWidth = 1;
      this._line(left, y(lane), width - MARGIN.right, y(lane));
      pen.fillStyle = colour("ink");
      pen.textAlign = "right";
      pen.fillText(narrow ? lane.replace("lab14-", "").replace("replica", "r") : lane.replace("lab14-", ""), left - 10, y(lane));
    }
    this._ticks(pen, { end, span, x, height, colour });

    pen.save();
    pen.beginPath();
    pen.rect(left, 0, width - left - MARGIN.right + size, height);
    pen.clip();
    const { seen, left: leftOut } = visible(timeline, names, end, span);
    this._writes(pen, seen, { timeline, names, end: Math.min(end, now), x, y, size, colour });
    for (const read of timeline.reads) {
      if (read.at_ms >= end - span && read.at_ms <= end) this._read(pen, read, { lanes, x, y, size, colour });
    }
    pen.restore();
    return leftOut;
  }

  // One path for each kind of line and mark: a stroke for each would take most of the page's time. The context's own
  // path, because Path2D objects hold memory that the browser is slow to give back.
  _writes(pen, writes, { timeline, names, end, x, y, size, colour }) {
    const [ways, flights, squares, circles, epochs] = [[], [], [], [], []];
    const top = y("primary");
    for (const write of writes) {
      const from = x(write.at_ms);
      if (write.op === "epoch") {
        epochs.push(from);
        continue;
      }
      circles.push(from);
      for (const name of names) {
        const applied = write.applied.get(name);
        if (applied === undefined && timeline.has(name, write)) continue; // when that was, nobody has told this page
        if (applied !== undefined && applied <= end) {
          ways.push(from, top, x(applied), y(name));
          squares.push(x(applied), y(name));
        } else {
          // On its way: as far down as the part of its delay that has passed, or near the lane where it is overdue.
          const share = Math.min(0.97, Math.max(0, (end - write.at_ms) / Math.max(1, write.delays[name] ?? 1000)));
          flights.push(from, top, x(end), top + (y(name) - top) * share);
        }
      }
    }
    pen.lineWidth = 1.2;
    pen.strokeStyle = pen.fillStyle = colour("applied");
    this._lines(ways);
    pen.beginPath();
    for (let at = 0; at < squares.length; at += 2) pen.rect(squares[at] - size / 2, squares[at + 1] - size / 2, size, size);
    pen.fill();
    pen.strokeStyle = pen.fillStyle = colour("write");
    pen.setLineDash([4, 4]);
    this._lines(flights);
    pen.setLineDash([]);
    pen.beginPath();
    for (const from of epochs) pen.rect(from - 1, 0, 2, y(names.at(-1) ?? "primary") + 20);
    for (const from of circles) {
      pen.moveTo(from, top);
      pen.arc(from, top, size * 0.7, 0, 2 * Math.PI);
    }
    pen.fill();
  }

  // Four numbers for each line.
  _lines(ends) {
    const pen = this._context;
    pen.beginPath();
    for (let at = 0; at < ends.length; at += 4) {
      pen.moveTo(ends[at], ends[at + 1]);
      pen.lineTo(ends[at + 2], ends[at + 3]);
    }
    pen.stroke();
  }

  _read(pen, read, { lanes, x, y, size, colour }) {
    const lane = lanes.includes(read.source) ? read.source : "primary";
    const at = [x(read.at_ms), y(lane) - size * 2];
    const kind = read.behind ? "stale" : read.version === 0 ? "missing" : "fresh";
    pen.strokeStyle = pen.fillStyle = colour(kind);
    pen.lineWidth = 2;
    pen.beginPath();
    if (kind === "stale") {
      this._line(at[0] - size, at[1] - size, at[0] + size, at[1] + size);
      this._line(at[0] - size, at[1] + size, at[0] + size, at[1] - size);
      pen.textAlign = "left";
      pen.fillText(`−${read.behind}`, at[0] + size + 3, at[1]);
    } else if (kind === "missing") {
      pen.moveTo(at[0], at[1] - size);
      for (const [dx, dy] of [[size, 0], [0, size], [-size, 0], [0, -size]]) pen.lineTo(at[0] + dx, at[1] + dy);
      pen.stroke();
    } else {
      pen.moveTo(at[0], at[1] - size);
      pen.lineTo(at[0] + size, at[1] + size);
      pen.lineTo(at[0] - size, at[1] + size);
      pen.fill();
    }
  }

  _ticks(pen, { end, span, x, height, colour }) {
    const step = span / 5;
    pen.fillStyle = colour("muted");
    pen.textAlign = "center";
    for (let back = 0; back <= 5; back += 1) {
      pen.fillText(back ? `−${((step * back) / 1000).toFixed(step < 1000 ? 1 : 0)} s` : "now", x(end - step * back), height - 10);
    }
  }

  _line(x1, y1, x2, y2) {
    this._context.beginPath();
    this._context.moveTo(x1, y1);
    this._context.lineTo(x2, y2);
    this._context.stroke();
  }

  _fit() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this._canvas;
    if (this._canvas.width !== Math.round(width * ratio) || this._canvas.height !== Math.round(height * ratio)) {
      this._canvas.width = Math.round(width * ratio);
      this._canvas.height = Math.round(height * ratio);
    }
    this._context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return { width, height };
  }
}

// The newest writes of which something is to be seen, at most so many, and how many older ones are left out.
function visible(timeline, names, end, span) {
  const seen = [];
  let left = 0;
  for (let index = timeline.list.length - 1; index >= 0; index -= 1) {
    const write = timeline.list[index];
    if (write.at_ms > end) continue;
    const landed = names.every((name) => (write.applied.get(name) ?? (timeline.has(name, write) ? 0 : Infinity)) < end - span);
    if (write.at_ms < end - span && landed) break; // and so have all before it
    if (seen.length < DRAWN_MAX) seen.push(write);
    else left += 1;
  }
  return { seen, left };
}
