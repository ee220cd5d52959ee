// The controls: what a person may do, as far as the services offer it.

import * as services from "./services.js";

const MODELS = {
  fixed: (ms) => ({ delay_ms: ms }),
  uniform: (ms) => ({ model: { kind: "uniform", low_ms: Math.round(ms / 2), high_ms: Math.round(ms * 1.5) } }),
  exponential: (ms) => ({ model: { kind: "exponential", mean_ms: Math.max(1, ms) } }),
};
const FAULTS = {
  pause: { duration_ms: 5000 },
  partition: { duration_ms: 5000 },
  crash: {},
  slow_apply: { duration_ms: 10000, entries_per_second: 5 },
  duplicate: { duration_ms: 5000 },
  drop_ack: { duration_ms: 5000 },
  skew: { duration_ms: 10000, skew_ms: 300 },
  corrupt: {},
};
const PAUSE_AFTER_REFUSAL_MS = 1000;

export class Controls {
  constructor(document, { watched }) {
    this._document = document;
    this._watched = watched;
    this._load = null;
    this._count = 0;
    this._forms = new Map();
    this._find("write-form").addEventListener("submit", (event) => this._write(event));
    this._find("read-form").addEventListener("submit", (event) => this._read(event));
    this._find("key").addEventListener("input", () => watched(this.key));
    this._find("rate").addEventListener("input", () => this._setRate(Number(this._find("rate").value)));
    this._find("end-faults").addEventListener("click", () => this._change(services.endFaults(), "Every fault is ended."));
    this._find("reset").addEventListener("click", () => this._change(services.reset(), "The lab is empty: a new epoch."));
  }

  get key() {
    return this._find("key").value;
  }

  // Show only what the services say that they can.
  async offer() {
    const { body } = await services.offers();
    for (const [id, path] of [["end-faults", "/faults/reset"], ["reset", "/reset"], ["read-form", "/read/{key}"]]) {
      this._find(id).hidden = !(path in body.paths);
    }
    for (const button of this._find("write-form").querySelectorAll("button")) button.hidden = !(`/${button.value}` in body.paths);
  }

  // A form for each replica, made once and kept.
  async replicas(names) {
    if (names.every((name) => this._forms.has(name)) && names.length === this._forms.size) return;
    const [{ body: delays }, { body: faults }] = await Promise.all([services.delays(), services.faults()]);
    const now = Object.fromEntries(Object.entries(delays.delays).map(([url, ms]) => [new URL(url).hostname, ms]));
    this._forms = new Map(names.map((name) => [name, this._form(name, now[name] ?? 0, Object.keys(faults.replicas[name]?.available ?? {}))]));
    this._find("replica-forms").replaceChildren(...this._forms.values());
    const from = this._find("from");
    from.replaceChildren(from.options[0], ...names.map((name) => new Option(name, name)));
  }

  _form(name, delayMs, available) {
    const make = (tag, properties, ...children) => {
      const element = Object.assign(this._document.createElement(tag), properties);
      element.append(...children);
      return element;
    };
    const delay = make("input", { type: "number", min: 0, max: 600000, value: delayMs, name: "delay" });
    const model = make("select", { name: "model" }, ...Object.keys(MODELS).map((kind) => new Option(kind, kind)));
    const set = make("button", { type: "submit", textContent: "Set the delay" });
    const form = make("form", { id: `delay-${name}` }, make("label", {}, "ms", delay), make("label", {}, "model", model), set);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const change = services.setDelay(name, MODELS[model.value](Number(delay.value)));
      this._change(change, `${name} is now late by ${delay.value} ms (${model.value}).`);
    });
    const kinds = Object.keys(FAULTS).filter((fault) => available.includes(fault));
    const fault = make("select", { name: "fault" }, ...kinds.map((kind) => new Option(kind, kind)));
    const begin = make("button", { type: "submit", textContent: "Begin the fault" });
    const faults = make("form", { id: `fault-${name}`, hidden: !kinds.length }, make("label", {}, "fault", fault), begin);
    faults.addEventListener("submit", (event) => {
      event.preventDefault();
      this._change(services.beginFault(name, fault.value, FAULTS[fault.value]), `${name}: ${fault.value} has begun.`);
    });
    return make("fieldset", {}, make("legend", { textContent: name }), form, faults);
  }

  async _write(event) {
    event.preventDefault();
    const how = event.submitter?.value ?? "write";
    await this._say("answer", async () => {
      const { body } = await services.write(how, this.key, this._find("value").value);
      const written = body.write_result ?? body;
      if (how === "write-and-read") return `Position ${written.position}: ${body.note}.`;
      if (how === "write-and-wait") {
        return body.consistency_achieved
          ? `Position ${written.position}: every replica had it after ${body.consistency_time_ms.toFixed(1)} ms.`
          : `Position ${written.position}: ${body.missing.join(", ")} did not have it in time.`;
      }
      return `Position ${written.position}.`;
    });
  }

  async _read(event) {
    event.preventDefault();
    await this._say("answer", async () => {
      const { status, body } = await services.read(this.key, this._find("level").value, this._find("from").value);
      if (status === 404) return `${body.source} does not have the key.`;
      const stale = body.stale === null ? "nobody knows how stale" : body.stale ? `stale by ${body.behind_versions} versions` : "fresh";
      return `${body.source} answered ${JSON.stringify(body.value)}, version ${body.version}, ${stale}, after ${body.waited_ms.toFixed(1)} ms.`;
    });
  }

  _setRate(rate) {
    this._find("rate-text").textContent = rate ? `${rate} writes a second` : "off";
    clearInterval(this._load);
    this._load = rate ? setInterval(() => this._one(), 1000 / rate) : null;
  }

  async _one() {
    this._count += 1;
    try {
      await services.write("write", `load-${this._count % 20}`, this._count);
    } catch (error) {
      const rate = Number(this._find("rate").value);
      clearInterval(this._load);
      this._find("answer").textContent = `The load pauses: ${error.message}`;
      this._load = setTimeout(() => this._setRate(rate), PAUSE_AFTER_REFUSAL_MS);
    }
  }

  _change(promise, done) {
    return this._say("changed", async () => {
      await promise;
      return done;
    });
  }

  async _say(id, work) {
    try {
      this._find(id).textContent = await work();
    } catch (error) {
      this._find(id).textContent = error.message;
    }
  }

  _find(id) {
    return this._document.getElementById(id);
  }
}
