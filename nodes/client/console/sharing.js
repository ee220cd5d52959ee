// Saves the moment shown as a picture or as events, and gives its address.

import { color, element, find } from "./dom.js";
import * as lanes from "./lanes.js";
import * as moment from "./moment.js";
import { picture, STYLES } from "./picture.js";
import { svg } from "./svg.js";

// `span`: how many seconds are shown.
export function start(span) {
  find("save-picture").addEventListener("click", () => save("svg", "image/svg+xml", (timeline, end) => drawing(timeline, end, span())));
  find("save-events").addEventListener("click", () => save("jsonl", "application/jsonl", () => moment.recorded().toLines()));
  find("copy-link").addEventListener("click", () => copyLink(span()));
}

function save(ending, type, content) {
  const { timeline, end } = moment.shown();
  if (end === null) return say("Nothing is known yet.");
  const name = `lab-${Math.floor(end)}.${ending}`;
  const href = URL.createObjectURL(new Blob([content(timeline, end)], { type }));
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000); // the browser may still be reading
  say(`Saved as ${name}.`);
}

function drawing(timeline, end, span) {
  const view = lanes.view({ end, span: span * 1000 });
  const names = new Set(["paper", ...Object.values(STYLES).map((style) => style.color)]);
  const colors = Object.fromEntries([...names].map((name) => [name, color(find("lanes"), name)]));
  return svg(picture(timeline, view), view, colors);
}

async function copyLink(span) {
  const address = moment.link(span);
  if (address === null) return say("Nothing is known yet.");
  try {
    await navigator.clipboard.writeText(address);
    find("link").hidden = true;
    say("Link copied.");
  } catch {
    // Browsers give the clipboard to secure pages only.
    Object.assign(find("link"), { hidden: false, value: address });
    find("link").select();
    say("Copy this link:");
  }
}

function say(text) {
  find("saved").textContent = text;
}
