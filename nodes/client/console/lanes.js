// Space and time: a lane per node, time to the right, each write as a mark and its ways to the replicas.

const DRAWN_MAX = 800;
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
    const seen = [...timeline.writes.values()].filter((write) => {
      const last = Math.max(write.at_ms, ...write.applied.values());
      return write.at_ms <= end && (last >= end - span || names.some((name) => !timeline.has(name, write)));
    });
    const drawn = seen.slice(-DRAWN_MAX);
    for (const write of drawn) this._write(pen, write, { timeline, names, end: Math.min(end, now), x, y, size, colour });
    for (const read of timeline.reads) {
      if (read.at_ms >= end - span && read.at_ms <= end) this._read(pen, read, { lanes, x, y, size, colour });
    }
    pen.restore();
    return seen.length - drawn.length;
  }

  _write(pen, write, { timeline, names, end, x, y, size, colour }) {
    const from = [x(write.at_ms), y("primary")];
    for (const name of write.op === "epoch" ? [] : names) {
      const applied = write.applied.get(name);
      if (applied === undefined && timeline.has(name, write)) continue; // when that was, nobody has told this page
      const landed = applied !== undefined && applied <= end;
      pen.strokeStyle = colour(landed ? "applied" : "write");
      pen.lineWidth = landed ? 1.2 : 1.6;
      pen.setLineDash(landed ? [] : [4, 4]);
      if (landed) {
        this._line(...from, x(applied), y(name));
        pen.fillStyle = colour("applied");
        pen.fillRect(x(applied) - size / 2, y(name) - size / 2, size, size);
      } else {
        // On its way: as far down as the part of its delay that has passed, or near the lane where it is overdue.
        const due = write.at_ms + (write.delays?.[name] ?? 1000);
        const share = Math.min(0.97, Math.max(0, (end - write.at_ms) / Math.max(1, due - write.at_ms)));
        this._line(...from, x(end), y("primary") + (y(name) - y("primary")) * share);
      }
    }
    pen.setLineDash([]);
    pen.fillStyle = colour("write");
    pen.beginPath();
    if (write.op === "epoch") pen.rect(x(write.at_ms) - 1, 0, 2, y(names.at(-1) ?? "primary") + 20);
    else pen.arc(...from, size * 0.7, 0, 2 * Math.PI);
    pen.fill();
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
