// What is shown of the page: tabs, the scenes beside the lanes, and the sheets over the picture.

import { find } from "./dom.js";

const KEYS = { ArrowRight: 1, ArrowLeft: -1 };

export function start() {
  for (const list of document.querySelectorAll("[role=tablist]")) startTabs([...list.querySelectorAll("[role=tab]")]);
  find("scenes-toggle").addEventListener("click", () => showScenes(find("scenes").hidden));
  find("scenes-close").addEventListener("click", () => {
    showScenes(false);
    find("scenes-toggle").focus();
  });
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") closeSheets();
  });
}

export function showScenes(shown) {
  find("scenes").hidden = !shown;
  find("scenes-toggle").setAttribute("aria-expanded", String(shown));
}

function startTabs(tabs) {
  const select = (selected) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab === selected));
      tab.tabIndex = tab === selected ? 0 : -1;
      find(tab.getAttribute("aria-controls")).hidden = tab !== selected;
    }
  };
  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", ({ key }) => {
      if (!(key in KEYS)) return;
      const next = tabs[(index + KEYS[key] + tabs.length) % tabs.length];
      select(next);
      next.focus();
    });
  }
}

// The focus returns to what opened the sheet.
function closeSheets() {
  for (const sheet of document.querySelectorAll("details.over[open]")) {
    if (sheet.contains(document.activeElement)) sheet.querySelector("summary").focus();
    sheet.open = false;
  }
}
