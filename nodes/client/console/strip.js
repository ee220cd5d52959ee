// The strip of the stream: its newest entries as they stand in the log, and how far each is at each replica.

import { element, find } from "./dom.js";
import * as entry from "./entry.js";
import { LOST, STATES, stateAt } from "./progress.js";

const SIGNS = { undelivered: "□", pending: "◧", applied: "■", acknowledged: "✓", lost: "⊘" };
const WORDS = { applied: "applied, unacknowledged", lost: "lost, no longer in the log", null: "unknown" };
const CHARACTER_EM = 0.62; // more than a digit's width
const KEYS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
const ENTRIES_MAX = 100;
const list = find("entries");
const items = new Map(); // by position, in log order as in the list: {item, button, cells, states}
let room = 0; // how many em the list is wide
let labels = [];
let drawn = []; // the arguments of the last draw

new ResizeObserver(() => { room = list.clientWidth / parseFloat(getComputedStyle(list).fontSize); }).observe(list);
list.addEventListener("keydown", go);
const lostSign = sign(LOST); // shown with the first lost entry
find("strip-legend").append(...STATES.map(sign), lostSign);
lostSign.hidden = true;

// The entries at `end`.
export function draw(timeline, end) {
  drawn = [timeline, end];
  const names = timeline.names();
  label(timeline.log, names);
  const entries = newest(timeline, end);
  arrange(isHeld(entries, timeline, end) ? [...items.keys()] : entries.map(({ position }) => position), names);
  find("strip-none").hidden = items.size > 0;
  for (const [position, item] of items) show(item, timeline.writes.get(position), timeline, end);
  entry.draw(timeline, end);
}

function sign(state) {
  return element("li", { className: state }, element("span", { textContent: SIGNS[state], ariaHidden: "true" }), ` ${WORDS[state] ?? state}`);
}

function label(log, names) {
  if (log && find("strip-log").textContent !== log) find("strip-log").textContent = log;
  if (labels.join() === names.join()) return;
  labels = names;
  find("strip-names").replaceChildren(...["ID", ...names].map((name) => element("span", { textContent: name.replace("lab14-", "") })));
  items.clear();
  list.replaceChildren();
}

// As many as there is room for, in log order. Entries from before a reset are no longer in the stream.
function newest(timeline, end) {
  const found = [];
  let characters = 0;
  const entries = [...timeline.older, ...timeline.list.slice(-ENTRIES_MAX)];
  for (const write of entries.reverse()) {
    if (!write.seen || write.at_ms > end) continue;
    characters = Math.max(characters, write.position.length);
    if ((found.length + 1) * Math.max(3.4, CHARACTER_EM * characters + 1) > room || found.length === ENTRIES_MAX) break;
    found.unshift(write);
    if (write.op === "epoch" && write.value === "") break;
  }
  return found;
}

// Entries do not move away from a pointer or from the keyboard's focus while they are in the picture.
function isHeld(entries, timeline, end) {
  const isPicked = list.matches(":hover") || list.querySelector(":focus-visible") !== null;
  const held = isPicked && items.size > 0 && [...items.keys()].every((position) => timeline.writes.get(position)?.at_ms <= end);
  find("strip-held").hidden = !held || items.has(entries.at(-1)?.position);
  return held;
}

// Keep the elements of entries that stay, and use those of the others again.
function arrange(positions, names) {
  const wanted = new Set(positions);
  const gone = [...items].filter(([position]) => !wanted.has(position));
  const hadFocus = gone.some(([, { button }]) => button === document.activeElement);
  for (const [position, { item }] of gone) {
    items.delete(position);
    item.remove();
  }
  if (positions.length === items.size && positions.every((position, index) => list.children[index] === items.get(position)?.item)) return;
  const kept = new Map(items);
  items.clear();
  for (const [index, position] of positions.entries()) {
    const one = kept.get(position) ?? use(gone.pop()?.[1] ?? make(names), position);
    items.set(position, one);
    if (list.children[index] !== one.item) list.insertBefore(one.item, list.children[index] ?? null);
  }
  const buttons = [...list.querySelectorAll("button")];
  if (!buttons.some(({ tabIndex }) => tabIndex === 0)) buttons.at(-1).tabIndex = 0;
  if (hadFocus) move(buttons[0]);
}

function make(names) {
  const cells = names.map(() => element("span", { className: "cell" }));
  const button = element("button", { type: "button", tabIndex: -1, ariaHasPopup: "dialog" }, element("code"), ...cells);
  const one = { item: element("li", {}, button), button, cells };
  button.addEventListener("click", () => {
    entry.open(one.position, button);
    draw(...drawn);
  });
  return one;
}

function use(one, position) {
  Object.assign(one, { position, states: null });
  one.button.tabIndex = -1;
  one.button.firstChild.textContent = position;
  return one;
}

function show(one, write, timeline, end) {
  const states = labels.map((name) => stateAt(timeline, write, name, end));
  one.button.classList.toggle("chosen", entry.isOpen(one.position));
  if (one.states?.join() === states.join()) return;
  one.states = states;
  const isLost = states.includes(LOST);
  one.button.classList.toggle(LOST, isLost);
  if (isLost) lostSign.hidden = false;
  for (const [index, cell] of one.cells.entries()) {
    cell.className = `cell ${states[index] ?? ""}`;
    cell.textContent = SIGNS[states[index]] ?? "";
  }
  const texts = labels.map((name, index) => `${name} ${WORDS[states[index]] ?? states[index]}`);
  one.button.ariaLabel = one.button.title = `${one.position}: ${texts.join("; ")}`;
}

function go(event) {
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  const buttons = [...list.querySelectorAll("button")];
  const index = buttons.indexOf(document.activeElement) + KEYS[event.key];
  move(buttons[Math.max(0, Math.min(buttons.length - 1, index))]);
}

function move(button) {
  for (const one of list.querySelectorAll("button")) one.tabIndex = one === button ? 0 : -1;
  button.focus();
}
