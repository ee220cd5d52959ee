// What the page points at: nodes, writes, and elements of the page.

export const highlighted = { nodes: new Set(), positions: new Set() };
const spotlit = new Set();

// Replaces what was highlighted before; without arguments, nothing is.
export function highlight({ nodes = [], positions = [], ids = [] } = {}) {
  highlighted.nodes = new Set(nodes);
  highlighted.positions = new Set(positions);
  for (const element of spotlit) element.classList.remove("spotlit");
  spotlit.clear();
  for (const id of ids) spotlit.add(document.getElementById(id));
  for (const element of spotlit) element.classList.add("spotlit");
}
