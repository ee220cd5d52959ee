// The forms and buttons for writes, reads, load, delays and faults.

import { DELAY_MS_MAX, element, find, versionsBehind } from "./dom.js";
import * as services from "./services.js";

const MODELS = {
  fixed: (ms) => ({ kind: "fixed", ms }),
  uniform: (ms) => ({ kind: "uniform", low_ms: Math.round(ms / 2), high_ms: Math.round(ms * 1.5) }),
  exponential: (ms) => ({ kind: "exponential", mean_ms: Math.max(1, ms) }),
};
// The delays of a replica, by their names in its settings: their names in a request and in GET /delays, and in the page.
const DELAYS = {
  delay: { body: "model", means: "delays", models: "models", title: "delay" },
  ack: { body: "ack_model", means: "ack_delays", models: "ack_models", title: "ack delay" },
};
const PAUSE_AFTER_ERROR_MS = 1000;
const ISOLATED_MS = 10_000; // long enough for a failover
const RETRY_MS = 2000; // until the replicas' settings are requested again
let load = null;
let count = 0;
let forms = new Map();
let building = false;
let retryAt = 0;
let offerFailover = () => {};

// `watched` is called with another watched key, `hasSentinels` if the log server can fail over.
export function start({ watched, hasSentinels }) {
  offerFailover = hasSentinels;
  find("write-form").addEventListener("submit", write);
  find("read-form").addEventListener("submit", read);
  find("key").addEventListener("input", () => watched(key()));
  find("rate").addEventListener("input", () => setRate(Number(find("rate").value)));
  find("end-faults").addEventListener("click", () => change(find("end-faults"), "All faults ended.", services.endFaults));
  find("reset").addEventListener("click", () => change(find("reset"), "All data deleted; a new epoch started.", services.reset));
  find("token-form").addEventListener("submit", enterToken);
  find("token-forget").addEventListener("click", forgetToken);
}

// Ask for the token if the lab has one that this tab lacks, or offer to forget it.
function showToken(text) {
  const hasToken = services.token() !== "";
  find("token-form").hidden = !hasToken && !services.locked();
  find("token-forget").hidden = !hasToken;
  for (const part of find("token-form").querySelectorAll("label, [type=submit]")) part.hidden = hasToken;
  find("token-text").textContent = text;
}

const LOCKED = "This lab has an admin token. Delays, faults, resets and predictions need it: enter the value of LAB_ADMIN_TOKEN.";

async function enterToken(event) {
  event.preventDefault();
  const { value } = find("token");
  const before = services.token();
  try {
    services.setToken(value);
    await services.delays();
    find("token").value = "";
    showToken("Admin token accepted; kept until this tab is closed.");
    retryAt = 0;
  } catch (error) {
    services.setToken(before);
    showToken(error.message);
  }
}

async function forgetToken() {
  services.setToken("");
  await services.delays().catch(() => null); // is a token needed?
  showToken(services.locked() ? LOCKED : "");
}

export const key = () => find("key").value;

// Hide what the client service does not offer.
export async function offer() {
  const { paths } = (await services.openapi()).body;
  const needed = { "end-faults": "/faults/reset", reset: "/reset", "read-form": "/read/{key}" };
  for (const [id, path] of Object.entries(needed)) find(id).hidden = !(path in paths);
  for (const button of find("write-form").querySelectorAll("button")) button.hidden = !(`/${button.value}` in paths);
}

// Rebuild the forms if the set of replicas has changed; after an error, try again later.
export async function replicas(names) {
  const shown = [...find("from").options].slice(1).map(({ value }) => value);
  if (shown.join() !== names.join()) find("from").replaceChildren(find("from").options[0], ...options(names));
  const isSame = names.every((name) => forms.has(name)) && names.length === forms.size;
  if (services.locked() && find("token-form").hidden) showToken(LOCKED); // whichever request was refused
  if (isSame || building || services.locked() || performance.now() < retryAt) return;
  building = true;
  try {
    await build(names);
    if (services.token()) showToken("Admin token accepted; kept until this tab is closed.");
    beside(find("faults"), "");
  } catch (error) {
    retryAt = performance.now() + RETRY_MS;
    if (services.locked()) showToken(services.token() ? error.message : LOCKED); // kept for the tab, but changed since
    beside(find("faults"), error.message);
  } finally {
    building = false;
  }
}

async function build(names) {
  const [{ body: delays }, { body: faults }] = await Promise.all([services.delays(), services.faults()]);
  forms = new Map(names.map((name) => [name, replicaForms(name, faults.replicas[name]?.available ?? {})]));
  for (const kind of [...Object.keys(DELAYS), "fault"]) find(`${kind}-forms`).replaceChildren(...names.map((name) => forms.get(name)[kind]));
  if (faults.log) {
    find("fault-forms").append(logForm(faults.log.available));
    offerFailover();
  }
  for (const [kind, { means, models }] of Object.entries(DELAYS)) {
    for (const [url, model] of Object.entries(delays[models])) {
      const { hostname } = new URL(url);
      if (!forms.has(hostname)) continue;
      find(`${kind}-${hostname}`).elements.delay.value = delays[means][url];
      showSettings(hostname, { [kind]: model });
    }
  }
}

// Show a replica's current delay models, which can also be set elsewhere.
export function showSettings(name, settings) {
  if (!forms.has(name)) return;
  for (const kind of Object.keys(DELAYS)) if (settings[kind]) find(`${kind}-${name}`).elements.current.value = modelText(settings[kind]);
}

const modelText = ({ kind, ...parameters }) => [kind, ...Object.entries(parameters).map(parameterText)].join(", ").slice(0, 80);
// low_ms: 100 becomes "low 100 ms".
function parameterText([name, value]) {
  const [, stem, unit] = name.match(/^(.*?)(?:_?(ms))?$/);
  return [stem, typeof value === "number" ? value : JSON.stringify(value), unit].filter((part) => part || part === 0).join(" ");
}

function write(event) {
  event.preventDefault();
  const endpoint = event.submitter?.value ?? "write";
  show(find("write-form"), "answer", async () => {
    const { body } = await services.write(endpoint, key(), find("value").value);
    const written = `Position ${(body.write_result ?? body).position}`;
    if (endpoint === "write-and-read") return `${written}: ${body.note}.`;
    if (endpoint !== "write-and-wait") return `${written}.`;
    return body.consistency_achieved
      ? `${written} reached every replica after ${body.consistency_time_ms.toFixed(1)} ms.`
      : `${written} did not reach ${body.missing.join(", ")} in time.`;
  });
}

function read(event) {
  event.preventDefault();
  show(find("read-form"), "answer", async () => {
    const { status, body } = await services.read(key(), find("level").value, find("from").value);
    if (status === 404) return `${body.source} does not have the key.`;
    const staleness = body.stale === null ? "staleness unknown" : body.stale ? `stale, ${versionsBehind(body.behind_versions)}` : "fresh";
    return `${body.source} returned ${JSON.stringify(body.value)}, version ${body.version}, ${staleness}, after ${body.waited_ms.toFixed(1)} ms.`;
  });
}

function setRate(rate) {
  find("rate-text").textContent = rate ? `${rate} writes/s` : "off";
  beside(find("rate").parentElement, "");
  clearInterval(load);
  load = rate ? setInterval(writeLoad, 1000 / rate) : null;
}

async function writeLoad() {
  count += 1;
  try {
    await services.write("write", `load-${count % 20}`, count, { repeatable: false });
  } catch (error) {
    const rate = Number(find("rate").value);
    clearInterval(load);
    beside(find("rate").parentElement, `Load paused: ${error.message}`);
    load = setTimeout(() => setRate(rate), PAUSE_AFTER_ERROR_MS);
  }
}

function replicaForms(name, available) {
  const kinds = Object.keys(available);
  const fault = element("select", { name: "fault" }, ...options(kinds));
  const faultForm = form(`fault-${name}`, name, "Start fault", { fault }, (made) =>
    change(made, `${name}: ${fault.value} started.`, () => services.startFault(name, available[fault.value].examples[0])));
  faultForm.hidden = !kinds.length;
  return { delay: delayForm(name, "delay"), ack: delayForm(name, "ack"), fault: faultForm };
}

function logForm(available) {
  const fault = element("select", { name: "fault" }, ...options(available));
  const duration = () => (fault.value === "isolate-master" ? { duration_ms: ISOLATED_MS } : {});
  return form("fault-log", "log", "Start fault", { fault }, (made) =>
    change(made, `log: ${fault.value} started.`, () => services.startFault("log", { fault: fault.value, ...duration() })));
}

function delayForm(name, kind) {
  const { body, title } = DELAYS[kind];
  const delay = element("input", { type: "number", min: 0, max: DELAY_MS_MAX, value: 0, name: "delay" });
  const model = element("select", { name: "model" }, ...options(Object.keys(MODELS)));
  const made = form(`${kind}-${name}`, name, `Set ${title}`, { ms: delay, model }, (made) =>
    change(made, `${name}: ${title} set to ${delay.value} ms (${model.value}).`, () => services.setDelay(name, { [body]: MODELS[model.value](Number(delay.value)) })));
  made.append(element("output", { name: "current", className: "current" }));
  return made;
}

function form(id, name, action, fields, submit) {
  const labels = Object.entries(fields).map(([label, field]) => element("label", {}, label, field));
  const made = element("form", { id, ariaLabel: name, className: "node" }, element("strong", { textContent: name.replace("lab14-", "") }), ...labels, element("button", { type: "submit", textContent: action }));
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(made);
  });
  return made;
}

const options = (names) => names.map((name) => new Option(name, name));

const change = (control, done, request) => show(control, "changed", () => request().then(() => done));

// Show the result in the place for it, or the error beside the control that caused it.
async function show(control, place, work) {
  beside(control, "");
  try {
    find(place).textContent = await work();
  } catch (error) {
    find(place).textContent = "";
    beside(control, error.message);
  }
}

function beside(control, text) {
  let place = control.nextElementSibling;
  if (!place?.classList.contains("error")) {
    if (!text) return;
    place = element("p", { className: "error", role: "alert" });
    control.after(place);
  }
  place.textContent = text;
}
