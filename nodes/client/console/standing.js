// How far a replica is, counted from the entries, so that all its numbers are of one moment.

import { isDelivered } from "./progress.js";
import { parsePosition, reached } from "./timeline.js";

const REPORTED_MS = 300; // later than that, what is delivered has been reported

// The moment of the numbers beside a picture that ends at `end`.
export const numbersAt = (end, isLive) => (isLive ? end - REPORTED_MS : end);

// The numbers at a moment; those of the replica's last report if the page does not know all entries that it lacks.
export function standing(timeline, name, at) {
  return counted(timeline, name, at) ?? reported(timeline, name);
}

// The version of the primary at a moment; its newest one if the page knows no entry that old, null if it knows none.
export const headAt = (timeline, at) => published(timeline, at).at(-1)?.version ?? timeline.head?.version ?? null;

// What the log has, in its order.
const published = (timeline, at) =>
  [...timeline.older, ...timeline.list].filter(({ seen, at_ms: since, lost_ms: lost }) => seen && since <= at && !(lost <= at));

function counted(timeline, name, at) {
  const entries = published(timeline, at);
  const newest = entries.at(-1);
  if (!newest || at > timeline.knownUntil(name) || !hasAllBefore(timeline, name, entries[0])) return null;
  const done = (write, kind) => (write[kind].has(name) ? write[kind].get(name) <= at : timeline.has(name, write, kind));
  const unacknowledged = entries.filter((write) => !done(write, "acknowledged"));
  const unapplied = unacknowledged.filter((write) => !done(write, "applied"));
  if (unacknowledged.some(({ epoch, op }) => epoch !== newest.epoch || op === "epoch")) return null;
  const waiting = unapplied.filter((write) => isDelivered(timeline, write, name, at)).length;
  const applied = unacknowledged.length - unapplied.length;
  const [version, acknowledged] = [unapplied, unacknowledged].map(([oldest]) => (oldest ? oldest.version - 1 : newest.version));
  const [lag, ackLag] = [unapplied, unacknowledged].map(([oldest]) => (oldest ? at - oldest.at_ms : 0));
  return { version, acknowledged, behind: newest.version - version, lag, ackLag, pending: waiting + applied, waiting, applied };
}

// Whether the replica has acknowledged everything before this entry.
function hasAllBefore(timeline, name, { epoch, version }) {
  const { acknowledged_version: last, applied_position: applied } = timeline.replicas.get(name);
  return last != null && (version === 0 || reached({ epoch: parsePosition(applied).epoch, version: last }, { epoch, version: version - 1 }));
}

function reported(timeline, name) {
  const state = timeline.replicas.get(name);
  const { version } = parsePosition(state.applied_position);
  const { acknowledged_version: acknowledged, lag_versions: behind, lag_ms: lag, ack_lag_ms: ackLag } = state;
  return { version, acknowledged, behind, lag, ackLag, pending: state.pending, waiting: state.waiting, applied: state.applied_unacknowledged };
}
