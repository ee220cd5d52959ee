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
let load = null;
let count = 0;
let forms = new Map();

export function start(watched) {
  find("write-form").addEventListener("submit", write);
  find("read-form").addEventListener("submit", read);
  find("key").addEventListener("input", () => watched(key()));
  find("rate").addEventListener("input", () => setRate(Number(find("rate").value)));
  find("end-faults").addEventListener("click", () => change("All faults ended.", services.endFaults));
  find("reset").addEventListener("click", () => change("All data deleted; a new epoch started.", services.reset));
}

export const key = () => find("key").value;

// Hide what the client service does not offer.
export async function offer() {
  const { paths } = (await services.openapi()).body;
  const needed = { "end-faults": "/faults/reset", reset: "/reset", "read-form": "/read/{key}" };
  for (const [id, path] of Object.entries(needed)) find(id).hidden = !(path in paths);
  for (const button of find("write-form").querySelectorAll("button")) button.hidden = !(`/${button.value}` in paths);
}

// Rebuild the forms if the set of replicas has changed.
export async function replicas(names) {
  if (names.every((name) => forms.has(name)) && names.length === forms.size) return;
  const [{ body: delays }, { body: faults }] = await Promise.all([services.delays(), services.faults()]);
  forms = new Map(names.map((name) => [name, replicaForms(name, faults.replicas[name]?.available ?? {})]));
  find("replica-forms").replaceChildren(...forms.values());
  find("from").replaceChildren(find("from").options[0], ...options(names));
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
  show("answer", async () => {
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
  show("answer", async () => {
    const { status, body } = await services.read(key(), find("level").value, find("from").value);
    if (status === 404) return `${body.source} does not have the key.`;
    const staleness = body.stale === null ? "staleness unknown" : body.stale ? `stale, ${versionsBehind(body.behind_versions)}` : "fresh";
    return `${body.source} returned ${JSON.stringify(body.value)}, version ${body.version}, ${staleness}, after ${body.waited_ms.toFixed(1)} ms.`;
  });
}

function setRate(rate) {
  find("rate-text").textContent = rate ? `${rate} writes/s` : "off";
  clearInterval(load);
  load = rate ? setInterval(writeLoad, 1000 / rate) : null;
}

async function writeLoad() {
  count += 1;
  try {
    await services.write("write", `load-${count % 20}`, count);
  } catch (error) {
    const rate = Number(find("rate").value);
    clearInterval(load);
    find("answer").textContent = `Load paused: ${error.message}`;
    load = setTimeout(() => setRate(rate), PAUSE_AFTER_ERROR_MS);
  }
}

function replicaForms(name, available) {
  const kinds = Object.keys(available);
  const fault = element("select", { name: "fault" }, ...options(kinds));
  const faultForm = form(`fault-${name}`, "Start fault", { fault }, () =>
    change(`${name}: ${fault.value} started.`, () => services.startFault(name, available[fault.value].examples[0])));
  faultForm.hidden = !kinds.length;
  return element("fieldset", {}, element("legend", { textContent: name }), ...Object.keys(DELAYS).map((kind) => delayForm(name, kind)), faultForm);
}

function delayForm(name, kind) {
  const { body, title } = DELAYS[kind];
  const delay = element("input", { type: "number", min: 0, max: DELAY_MS_MAX, value: 0, name: "delay" });
  const model = element("select", { name: "model" }, ...options(Object.keys(MODELS)));
  const made = form(`${kind}-${name}`, `Set ${title}`, { ms: delay, model }, () =>
    change(`${name}: ${title} set to ${delay.value} ms (${model.value}).`, () => services.setDelay(name, { [body]: MODELS[model.value](Number(delay.value)) })));
  made.append(element("output", { name: "current", className: "current" }));
  return made;
}

function form(id, action, fields, submit) {
  const labels = Object.entries(fields).map(([label, field]) => element("label", {}, label, field));
  const made = element("form", { id }, ...labels, element("button", { type: "submit", textContent: action }));
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  return made;
}

const options = (names) => names.map((name) => new Option(name, name));

const change = (done, request) => show("changed", () => request().then(() => done));

async function show(id, work) {
  find(id).textContent = await work().catch((error) => error.message);
}
