// Helpers for the page's elements and texts.

export const DELAY_MS_MAX = 600_000; // the longest delay that the lab accepts

export const find = (id) => document.getElementById(id);

export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Cells are always text, never markup.
export function fillTable(id, headings, rows) {
  const row = (tag, texts, properties) => element("tr", {}, ...texts.map((text) => element(tag, { textContent: text, ...properties })));
  find(id).tHead.replaceChildren(row("th", headings, { scope: "col" }));
  find(id).tBodies[0].replaceChildren(...rows.map((texts) => row("td", texts)));
}

// The value of a custom property in console.css.
export const color = (place, name) => getComputedStyle(place).getPropertyValue(`--${name}`).trim();

export const versionsBehind = (count) => `${count} version${count === 1 ? "" : "s"} behind`;
