// Requests to the client service.

async function request(method, path, body, options = {}) {
  const json = body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, { method, ...json, ...options });
  const found = await response.json();
  if (!response.ok && response.status !== 404) throw new Error(found.detail ?? `${response.status}`);
  return { status: response.status, body: found };
}

export const write = (endpoint, key, value) => request("POST", `/${endpoint}`, { key, value });

export function read(key, level, replica) {
  const query = new URLSearchParams({ level: level || "eventual" });
  if (level === "bounded") query.set("max_lag_ms", "500");
  if (replica && level !== "strong") query.set("replica", replica);
  return request("GET", `/read/${encodeURIComponent(key)}?${query}`);
}

export const everywhere = (key) => request("GET", `/everywhere/${encodeURIComponent(key)}`);
export const compare = () => request("GET", "/read-compare?digest=true");
export const delays = () => request("GET", "/delays");
export const setDelay = (replica, change) => request("POST", "/delays", { replica, ...change });
export const prediction = (writesPerSecond, untilMs, points) =>
  request("GET", `/prediction?${new URLSearchParams({ writes_per_second: writesPerSecond, until_ms: untilMs, points })}`);
export const faults = () => request("GET", "/faults");
export const startFault = (replica, fault) => request("POST", "/faults", { replica, ...fault });
export const endFaults = () => request("POST", "/faults/reset");
export const beginScene = (name) => request("POST", "/scenes", { name });
export const renewScene = (id, leaseMs) => request("PUT", `/scenes/${id}${leaseMs === undefined ? "" : `?lease_ms=${leaseMs}`}`, undefined, { keepalive: true });
export const endScene = (id) => request("DELETE", `/scenes/${id}`);
export const reset = () => request("POST", "/reset");
export const openapi = () => request("GET", "/openapi.json");
