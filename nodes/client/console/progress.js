// How far an entry is at a replica, at a moment.

import { parsePosition, reached } from "./timeline.js";

// In their order. "pending" is delivered and not applied, "applied" is not acknowledged. An entry that is no longer in the
// log is "lost" instead.
export const STATES = ["undelivered", "pending", "applied", "acknowledged"];
export const LOST = "lost";

// The state at `end`, in milliseconds by the log's clock; null if it is unknown.
export function stateAt(timeline, write, name, end) {
  if (write.lost_ms <= end) return LOST;
  if (happened(timeline, write, name, "acknowledged", end)) return "acknowledged";
  const delivered = isDelivered(timeline, write, name, end);
  if (delivered === false) return "undelivered";
  const isApplied = happened(timeline, write, name, "applied", end);
  const isNext = happened(timeline, write, name, isApplied ? "acknowledged" : "applied", end);
  if (!delivered || isNext === null || end > timeline.knownUntil(name)) return null;
  return isApplied ? "applied" : "pending";
}

// Whether the entry has been delivered to a replica, null if unknown. The log is asked now and then: between the time
// at which an entry was last known as undelivered and the one at which it was first known as delivered, it is unknown.
export function isDelivered(timeline, write, name, end) {
  if (happened(timeline, write, name, "applied", end)) return true;
  if (write.lost_ms <= end) return null;
  const { before, after } = timeline.deliveredAround(name, end);
  const had = (answer) => reached(parsePosition(answer.position), write);
  if (!before) return null;
  if (had(before)) return true;
  return before.at_ms <= write.at_ms || (after && had(after)) ? null : false;
}

// Whether a replica had applied or acknowledged the entry; null if it has, at an unknown time.
function happened(timeline, write, name, kind, end) {
  const at = write[kind].get(name);
  if (at !== undefined) return at <= end;
  if (!timeline.has(name, write, kind)) return false;
  return timeline.reportedAt <= end ? true : null;
}
