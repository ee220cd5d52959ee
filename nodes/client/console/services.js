// The client service, as the page asks it. Errors are its own problem details.

export class Refused extends Error {}

async function ask(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const found = await answer.json();
  if (!answer.ok && answer.status !== 404) throw new Refused(found.detail ?? `${answer.status}`);
  return { status: answer.status, body: found };
}

export const write = (how, key, value) => ask("POST", `/${how}`, { key, value });

export function read(key, level, replica) {
  const query = new URLSearchParams({ level: level || "eventual" });
  if (level === "bounded") query.set("max_lag_ms", "500");
  if (replica && level !== "strong") query.set("replica", replica);
  return ask("GET", `/read/${encodeURIComponent(key)}?${query}`);
}

export const everywhere = (key) => ask("GET", `/everywhere/${encodeURIComponent(key)}`);
export const delays = () => ask("GET", "/delays");
export const setDelay = (replica, change) => ask("POST", "/delays", { replica, ...change });
export const prediction = (writesPerSecond, untilMs, points) =>
  ask("GET", `/prediction?${new URLSearchParams({ writes_per_second: writesPerSecond, until_ms: untilMs, points })}`);
export const faults = () => ask("GET", "/faults");
export const beginFault = (replica, fault, parameters) => ask("POST", "/faults", { replica, fault, ...parameters });
export const endFaults = () => ask("POST", "/faults/reset");
export const reset = () => ask("POST", "/reset");
export const offers = () => ask("GET", "/openapi.json");
