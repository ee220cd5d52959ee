// The version race: each node's version over time, from every write, apply and heartbeat that the page knows.

import { reached } from "./observations.js";

// By node, the times at which it reached a version: [{ at, epoch, version }], ascending. A replica has a version once it
// has applied that entry and all before it.
export function race(timeline) {
  const committed = [...timeline.older.slice(-1), ...timeline.list].filter(({ seen }) => seen);
  const primary = committed.map(({ at_ms: at, epoch, version }) => ({ at, epoch, version }));
  return new Map([["primary", primary], ...timeline.names().map((name) => [name, reachedBy(timeline, name)])]);
}

function reachedBy(timeline, name) {
  const known = [...complete(timeline, name), ...timeline.knowledge(name).heartbeats].sort((one, other) => one.at - other.at);
  const points = [];
  for (const point of known) {
    if (points.length && reached(points.at(-1), point)) continue;
    if (points.at(-1)?.at === point.at) points.pop();
    points.push(point);
  }
  return points;
}

// When the replica had an entry and all before it, for the entries applied at a known time.
function complete(timeline, name) {
  const points = [];
  let latest = -Infinity;
  let missing = null; // the epoch in which an entry is missing
  for (const write of timeline.list) {
    const at = write.applied.get(name);
    if (at === undefined && !timeline.has(name, write)) missing = write.epoch;
    if (at === undefined || write.epoch === missing) continue;
    latest = Math.max(latest, at);
    points.push({ at: latest, epoch: write.epoch, version: write.version });
  }
  return points;
}

// For a chart from `start` to `end`: the times of all points, and the nodes' versions at these times, null where unknown.
export function aligned(points, start, end, knownUntil) {
  const limits = [...points.keys()].map((name) => Math.min(end, knownUntil(name)));
  const inside = (at) => at >= start && at <= end;
  const changes = [...points.values()].flatMap((known) => known.map(({ at }) => at).filter(inside));
  const times = Float64Array.from(new Set([start, end, ...limits.filter(inside), ...changes])).sort();
  const versions = [...points.values()].map((known, node) => {
    let next = 0;
    return Array.from(times, (at) => {
      while (known[next]?.at <= at) next += 1;
      return next && at <= limits[node] ? known[next - 1].version : null;
    });
  });
  return { times: [...times], versions };
}
