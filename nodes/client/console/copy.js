// Copying to the clipboard.

import { element } from "./dom.js";

// Raises if the browser does not allow it. Browsers offer navigator.clipboard only to pages from this machine or by HTTPS.
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const focused = document.activeElement;
  const place = element("textarea", { value: text, className: "unseen" });
  document.body.append(place);
  place.select();
  const isCopied = document.execCommand("copy");
  place.remove();
  focused?.focus();
  if (!isCopied) throw new Error("The browser does not allow copying.");
}
