// What is highlighted: nodes with their lanes and states, writes on the lanes, and elements of the page. Picture and
// states take it from here each time they are drawn.

import { find } from "./dom.js";

export const highlighted = { nodes: new Set(), positions: new Set() };
const SPOTLIT = "spotlit";

// Highlight these instead of what was highlighted before; nothing without arguments.
export function highlight({ nodes = [], positions = [], ids = [] } = {}) {
  highlighted.nodes = new Set(nodes);
  highlighted.positions = new Set(positions);
  for (const one of document.querySelectorAll(`.${SPOTLIT}`)) one.classList.remove(SPOTLIT);
  for (const id of ids) find(id)?.classList.add(SPOTLIT);
  for (const row of find("now").tBodies[0].rows) row.classList.toggle(SPOTLIT, highlighted.nodes.has(row.cells[0].textContent));
}
