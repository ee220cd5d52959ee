// Listens to GET /events.

import { find } from "./dom.js";
import { holdKept } from "./moment.js";
import { KEPT_MS } from "./observations.js";

const RETRY_MS = 5000;

// `at`: the moment of a link, for which the feed sends the minute before it; or null. `span`: how many seconds are shown.
export function listen({ take, showConnection, at, span }) {
  const source = new EventSource(at === null ? "/events" : `/events?since_ms=${Math.max(0, at - KEPT_MS)}`);
  const linked = at;
  let full = null; // why there is no stream for this page; the browser tries again after a while
  source.addEventListener("open", () => showConnection("open", "Live"));
  source.addEventListener("full", (event) => { full = JSON.parse(event.data).detail; });
  source.addEventListener("error", () => {
    showConnection("lost", full ?? "Connection lost; reconnecting…");
    full = null;
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen({ take, showConnection, at, span }), RETRY_MS); // after a response with an error
  });
  source.addEventListener("kept", (event) => {
    at = null; // the next stream continues
    find("notice").textContent = holdKept(linked, span(), JSON.parse(event.data));
  });
  source.addEventListener("missed", () => showConnection("open", "Live; some events were missed"));
  source.addEventListener("message", (event) => take(event.data));
}
