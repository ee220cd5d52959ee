// Requests to the client service.

const TOKEN = "LAB_ADMIN_TOKEN"; // its name in the tab's storage, which no other tab sees and which ends with the tab
const ATTEMPTS = 4;
const RETRY_MS = 300;

const refused = new Set(); // the tokens that the lab has answered with 401

export const token = () => sessionStorage.getItem(TOKEN) ?? "";

// Keep a token for this tab, or forget it if it is empty. Raises if a header cannot carry it.
export function setToken(text) {
  if (!/^[\x21-\x7e\xa1-\xff]*$/.test(text)) throw new Error("A token has no spaces, and only characters of Latin-1.");
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}

// Whether requests that need the token would be refused, as far as is known.
export const locked = () => refused.has(token());

let hasLab = true;

// From now on no request is sent.
export function leaveLab() {
  hasLab = false;
}

export class Refused extends Error {
  constructor(status, detail, outcome) {
    super(detail);
    Object.assign(this, { status, outcome }); // of a write: whether it was applied
  }
}

// The token goes to this origin only. `repeatable`: whether repeating a request changes nothing; then a 503 is retried.
async function request(method, path, body, { repeatable = method === "GET", headers = {}, keepalive = false } = {}) {
  if (!hasLab) throw new Error("a replay has no lab.");
  const given = token();
  const options = { method, headers: { ...headers, ...(given && { Authorization: `Bearer ${given}` }) }, mode: "same-origin", redirect: "error", keepalive };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  for (let attempt = 1; ; attempt += 1) {
    const response = await fetch(path, options).catch(() => { throw new Error("The client service cannot be reached."); });
    if (response.status !== 503 || !repeatable || attempt === ATTEMPTS) return answer(response, given);
    await new Promise((resolve) => { setTimeout(resolve, RETRY_MS * attempt); });
  }
}

async function answer(response, given) {
  const { status, ok } = response;
  const body = await response.json().catch(() => ({ detail: `The client service answered with status ${status}.` }));
  if (status === 401) {
    refused.add(given);
    throw new Refused(status, given ? "Wrong admin token: enter the value of LAB_ADMIN_TOKEN." : "This needs the admin token: enter the value of LAB_ADMIN_TOKEN.");
  }
  if (!ok && status !== 404) throw new Refused(status, body.detail ?? `The client service answered with status ${status}.`, body.outcome);
  return { status, body };
}

// With a write id, a repeated request is the same write.
const writeId = () => ({ "Idempotency-Key": Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-") });

export function write(endpoint, key, value, { repeatable = true, acks = 0, copies = 0, timeoutMs = 5000 } = {}) {
  const query = new URLSearchParams({ ...(acks && { acks, timeout_ms: timeoutMs }), ...(copies && { copies }) }).toString();
  return request("POST", `/${endpoint}${query && `?${query}`}`, { key, value }, { repeatable, headers: writeId() });
}

export function read(key, level, replica, { r = 2 } = {}) {
  const query = new URLSearchParams({ level: level || "eventual" });
  if (level === "bounded") query.set("max_lag_ms", "500");
  if (level === "quorum") query.set("r", r);
  if (replica && level !== "strong" && level !== "quorum") query.set("replica", replica);
  return request("GET", `/read/${encodeURIComponent(key)}?${query}`);
}

export const everywhere = (key) => request("GET", `/everywhere/${encodeURIComponent(key)}`);
export const compare = () => request("GET", "/read-compare?digest=true");
export const delays = () => request("GET", "/delays");
export const setDelay = (replica, change) => request("POST", "/delays", { replica, ...change }, { repeatable: true });
export const prediction = (writesPerSecond, untilMs, points) =>
  request("GET", `/prediction?${new URLSearchParams({ writes_per_second: writesPerSecond, until_ms: untilMs, points })}`);
export const faults = () => request("GET", "/faults");
export const startFault = (replica, fault) => request("POST", "/faults", { replica, ...fault });
// A fault that has ended by itself is not an error.
export const endFault = (replica, fault) => request("DELETE", `/faults/${replica}/${fault}`, undefined, { repeatable: true });
export const resync = (replica) => request("POST", "/resync", { replica }, { repeatable: true });
export const endFaults = () => request("POST", "/faults/reset", undefined, { repeatable: true });
// A scene that was answered with 503 has changed nothing yet.
export const beginScene = (name) => request("POST", "/scenes", { name }, { repeatable: true });
export const renewScene = (id, leaseMs) => request("PUT", `/scenes/${id}${leaseMs === undefined ? "" : `?lease_ms=${leaseMs}`}`, undefined, { repeatable: true, keepalive: true });
export const endScene = (id) => request("DELETE", `/scenes/${id}`, undefined, { repeatable: true });
export const reset = () => request("POST", "/reset");
export const openapi = () => request("GET", "/openapi.json");
