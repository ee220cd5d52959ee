// The ways between a replica's lane and the primary's: of a write, and of its acknowledgement back.

const OVERDUE = 0.97; // an overdue way stays just short of its lane
const UNKNOWN_MS = 1000; // the expected duration if the delay is unknown

// The ways of a write to and from a replica until `end`. `kind`: what the replica does at its end (applied) or has done
// at its start (acknowledged). `to` is null while it is on its way; `share` is how much of it has passed. A way at an
// unknown time, and one that a lost write did not end, is left out. Times are in milliseconds.
export function ways(timeline, write, name, end) {
  const applied = write.applied.get(name);
  const acknowledged = write.acknowledged.get(name);
  const found = [];
  const goesOn = (kind) => !(write.lost_ms <= end) && !timeline.has(name, write, kind);
  if (applied !== undefined || goesOn("applied")) {
    found.push(way("applied", write.at_ms, applied, write.delays[name], end));
  }
  if (applied <= end && (acknowledged !== undefined || goesOn("acknowledged"))) {
    found.push(way("acknowledged", applied, acknowledged, timeline.replicas.get(name)?.ack_delay_ms, end));
  }
  return found;
}

function way(kind, from, arrival, delay, end) {
  if (arrival <= end) return { kind, from, to: arrival, share: 1 };
  // By the delay even if the arrival is known by now, so that a paused picture stays the same.
  const passed = (end - from) / Math.max(1, delay ?? UNKNOWN_MS);
  return { kind, from, to: null, share: Math.min(OVERDUE, Math.max(0, passed)) };
}
