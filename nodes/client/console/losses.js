// The log's failovers at the top of the page: where it ended and goes on, and which acknowledged writes it has lost.

import { element, find } from "./dom.js";

const SHOWN_MS = { lost: 300_000, epoch: 60_000 }; // as long as /health shows a loss
const SHOWN_MAX = 3;
const CHARACTERS_MAX = 500;

const TEXTS = {
  lost: ({ count, positions, after }) =>
    `The log lost ${count} acknowledged ${count === "1" ? "write" : "writes"}: ${positions}. It ended at ${after} when another server took over.`,
  epoch: ({ position, after, reason }) => `The log ended at ${after} and continues at ${position}, in a new epoch: ${reason}.`,
};

// At `end`, the newest last.
export function draw({ breaks }, end) {
  const shown = breaks.filter(({ kind, at_ms: at }) => at <= end && at > end - SHOWN_MS[kind]).slice(-SHOWN_MAX);
  const texts = shown.map((event) => TEXTS[event.kind](event).slice(0, CHARACTERS_MAX));
  const place = find("breaks");
  if (place.dataset.texts === texts.join("\n")) return; // a screen reader announces each change
  place.dataset.texts = texts.join("\n");
  place.replaceChildren(...texts.map((textContent, index) => element("p", { textContent, className: shown[index].kind })));
  if (shown.some(({ kind }) => kind === "lost")) find("legend-lost").hidden = false;
}
