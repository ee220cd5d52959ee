// The sheet of one entry: its fields as they stand in the stream, its way, and the commands that show the same.

import { commands } from "./commands.js";
import { copy } from "./copy.js";
import { element, fillTable, find } from "./dom.js";
import { highlight } from "./highlight.js";
import { isDelivered, LOST, STATES, stateAt } from "./progress.js";

const PREVIEW = 120; // characters of a value in the feed
const sheet = find("entry");
let opened = null; // the position
let opener = null;
let shown = ""; // what the parts that do not change were made of

find("entry-close").addEventListener("click", close);
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && opened) close();
});

export const isOpen = (position) => opened === position;

export function open(position, button) {
  opened = position;
  opener = button;
  shown = "";
  highlight({ positions: [position] });
  find("entry-title").textContent = position;
  for (const id of ["entry-fields", "entry-commands"]) find(id).replaceChildren();
  fillTable("entry-way", [], []);
  sheet.hidden = false;
  find("entry-close").focus();
}

// The focus returns to the entry, or to another one if it is no longer shown.
function close() {
  opened = null;
  highlight();
  if (sheet.contains(document.activeElement)) (opener.isConnected ? opener : find("entries").querySelector("[tabindex='0']"))?.focus();
  sheet.hidden = true;
}

export function draw(timeline, end) {
  if (!opened) return;
  const write = timeline.writes.get(opened);
  const isKnown = Boolean(write?.seen && write.at_ms <= end);
  find("entry-gone").hidden = isKnown;
  if (!isKnown) return;
  find("entry-lost").hidden = !(write.lost_ms <= end);
  const names = timeline.names();
  if (shown !== [timeline.log, ...names].join()) showFixed(write, timeline.log, names);
  const rows = names.map((name) => [name, ...way(timeline, write, name, end)]);
  const texts = rows.flat().join();
  if (find("entry-way").dataset.texts === texts) return;
  find("entry-way").dataset.texts = texts;
  fillTable("entry-way", ["replica", "delivered", "applied", "acknowledged"], rows);
}

function showFixed(write, log, names) {
  shown = [log, ...names].join();
  find("entry-way").dataset.texts = "";
  find("entry-published").textContent = `Published at ${new Date(write.at_ms).toISOString()}`;
  const { op, key, value, write_id, traceparent } = write;
  const fields = Object.entries({ op, key, value, write_id, at: Math.round(write.at_ms * 1000), traceparent });
  find("entry-fields").replaceChildren(...fields.flatMap(([name, text]) => field(name, String(text), write)));
  find("entry-commands").replaceChildren(...commands(log ?? "", write.position, names).map(command));
}

function field(name, text, { value_bytes: characters }) {
  const found = [element("dt", { textContent: name }), element("dd", { textContent: text || '""' })];
  if (name === "value" && characters > PREVIEW) found[1].append(element("span", { className: "note", textContent: ` the first ${PREVIEW} of ${characters} characters` }));
  return found;
}

function command(line) {
  const button = element("button", { type: "button", textContent: "Copy", ariaLabel: `Copy ${line}` });
  button.addEventListener("click", async () => {
    try {
      await copy(line);
      find("entry-copied").textContent = `Copied: ${line}`;
    } catch (error) {
      find("entry-copied").textContent = error.message;
    }
  });
  return element("li", {}, element("code", { textContent: line }), " ", button);
}

function way(timeline, write, name, end) {
  const found = stateAt(timeline, write, name, end);
  const state = STATES.indexOf(found); // -1 if lost or unknown
  const step = (kind, onItsWay) => {
    const at = write[kind].get(name);
    if (at <= end) return `after ${(at - write.at_ms).toFixed(1)} ms`;
    const reached = STATES.indexOf(kind);
    if (state < 0) return found ?? "unknown";
    if (state >= reached) return "at an unknown time";
    return state === reached - 1 ? onItsWay : "not yet";
  };
  const delivered = { true: "yes", false: "not yet", null: "unknown" }[isDelivered(timeline, write, name, end)];
  return [state > 0 ? "yes" : delivered, step("applied", "on its way"), step("acknowledged", "on its way back")];
}
