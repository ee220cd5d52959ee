// Each node's state, at the end of its lane.

import { element, find } from "./dom.js";
import { highlighted } from "./highlight.js";
import { headAt, standing } from "./standing.js";

const LABELS = ["version", "acknowledged", "behind", "lag", "ack lag", "pending", "waiting", "unacknowledged"];

// `at`: the moment of the numbers. `key`: the watched key, `values`: each node's value of it.
export function draw(timeline, at, key, values) {
  const rows = timeline.names().map((name) => {
    const { version, acknowledged, behind, lag, ackLag, pending, waiting, applied } = standing(timeline, name, at);
    const lags = [lag, ackLag].map((ms) => (ms == null ? null : `${ms.toFixed(0)} ms`));
    return [name, [version, acknowledged, behind, ...lags, pending, waiting, applied], condition(timeline, name, behind)];
  });
  rows.unshift(["primary", [headAt(timeline, at), "", "", "", "", "", "", ""], { text: timeline.unreachable.get("primary"), wrong: true }]);
  find("watched-name").textContent = key;
  find("now").tBodies[0].replaceChildren(...rows.map((row) => card(row, key, values)));
}

// The name of a cell's column is also its label, as the columns' headings are not visible.
function card([name, numbers, { text, wrong }], key, values) {
  const cell = (content, label, className) => {
    const made = element("td", { textContent: content, className, role: "cell" });
    made.dataset.label = label;
    return made;
  };
  const cells = numbers.map((number, index) => cell(number ?? "unknown", LABELS[index], LABELS[index].replace(" ", "-")));
  const state = cell(text, "", wrong ? "state wrong" : "state");
  const heading = element("th", { scope: "row", role: "rowheader", textContent: name });
  return element("tr", { role: "row", className: highlighted.nodes.has(name) ? "spotlit" : "" }, heading, ...cells, cell(values.get(name), key, "value"), state);
}

function condition(timeline, name, behind) {
  const { faults, diverged, resyncing, live } = timeline.replicas.get(name);
  const wrong = [...faults, ...(diverged ? ["diverged"] : []), ...(resyncing ? [`resyncing: ${resyncing}`] : [])];
  const usual = !live ? "offline" : behind ? "behind" : "up to date";
  const unreachable = timeline.unreachable.get(name);
  return { text: unreachable ?? (wrong.join(", ") || usual), wrong: Boolean(unreachable || wrong.length || !live) };
}
