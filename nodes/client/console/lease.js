// A scene's lease on the lab, which the client service restores when the lease ends.

import * as services from "./services.js";

const RENEW_MS = 3000; // a third of the lease
const LEAVE_MS = 1000; // for requests on their way when the page is closed
// A browser slows the timers of a hidden page down to one a minute after five minutes, and may stop them earlier.
const HIDDEN_LEASE_MS = 60_000;
const HIDDEN_MAX_MS = 240_000;
const IDLE_MAX_MS = 900_000;

// Begin a scene, and renew its lease until end(); stop the script when the lab cannot or should not be held for it.
export async function hold(name, script) {
  const { id } = (await services.beginScene(name)).body;
  let hiddenAt = null;
  let isLeaving = false;
  const renew = async (leaseMs) => {
    const { status } = await services.renewScene(id, leaseMs).catch(() => ({})); // the next one can succeed
    if (status === 404) script.stop("Scene stopped: its page was not active, so the client service ended it");
  };
  const keep = () => {
    if (isLeaving) return;
    const now = performance.now();
    if (hiddenAt !== null && now - hiddenAt > HIDDEN_MAX_MS) script.stop("Scene stopped: its page was hidden for four minutes");
    else if (now - script.movedAt > IDLE_MAX_MS) script.stop("Scene stopped: nothing was clicked for 15 minutes");
    else renew(document.hidden ? HIDDEN_LEASE_MS : undefined);
  };
  const hide = () => {
    hiddenAt = document.hidden ? performance.now() : null;
    script.wake();
    keep();
  };
  const leave = () => {
    isLeaving = true; // the page is also hidden after this
    renew(LEAVE_MS);
  };
  const stay = () => { isLeaving = false; };
  const timer = setInterval(keep, RENEW_MS);
  const ended = new AbortController();
  document.addEventListener("visibilitychange", hide, { signal: ended.signal });
  window.addEventListener("pagehide", leave, { signal: ended.signal });
  window.addEventListener("pageshow", stay, { signal: ended.signal });
  return {
    async end() {
      clearInterval(timer);
      ended.abort();
      await services.endScene(id);
    },
  };
}
