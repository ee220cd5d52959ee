// Shows scenes beside the lanes: the list, the step with its guess, and the buttons.

import { element, find } from "./dom.js";
import { highlight } from "./highlight.js";
import { hold } from "./lease.js";
import { Script } from "./script.js";
import { stage } from "./stage.js";

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const waits = () => reducedMotion.matches || document.hidden;
let script = null; // the one that is playing
let wasShown = ""; // its step and phase

// `scenes`: functions from the verbs of stage.js to the steps of script.js, by name. `timeline` has the replicas'
// states; `pace` scales the times for reading.
export function addScenes(scenes, { timeline, pace }) {
  const before = find("scene-buttons").childElementCount;
  find("scene-buttons").append(...Object.entries(scenes).map(([name, scene], index) => {
    const button = element("button", { type: "button", textContent: `${before + index + 1}. ${name}` });
    button.addEventListener("click", () => play(name, scene, timeline, pace));
    return button;
  }));
}

export function startPlayer() {
  find("scene-back").addEventListener("click", () => script.back());
  find("scene-pause").addEventListener("click", () => script.pause(!script.paused));
  find("scene-next").addEventListener("click", () => script.next());
  find("scene-stop").addEventListener("click", () => script.stop("Scene stopped"));
  reducedMotion.addEventListener("change", () => script?.wake());
}

async function play(name, scene, timeline, pace) {
  if (script) return;
  if (timeline.names().length < 2) {
    say("The scenes require two replicas.");
    return;
  }
  script = new Script([], { pace, waits, changed: show });
  script.steps = scene(stage(timeline, script.signal));
  open(name);
  let end = "Scene finished";
  let lease = null;
  try {
    lease = await hold(name, script);
    await script.play();
  } catch (error) {
    end = script.signal.aborted ? script.signal.reason : `The scene failed: ${error.message}`;
  }
  close(await restored(lease, end));
}

async function restored(lease, end) {
  try {
    await lease?.end();
    return lease ? `${end}; what it changed is restored.` : end;
  } catch (error) {
    return `${end}. What it changed is not restored yet: ${error.message}`;
  }
}

function open(name) {
  find("scene-title").textContent = name;
  find("scene-step").textContent = "";
  find("scene-progress").removeAttribute("value");
  find("scenes").dataset.playing = ""; // console.css shows either the list or the scene
  say("The settings are saved first.");
  for (const id of ["scene-back", "scene-pause", "scene-next"]) find(id).disabled = true;
  find("scene-guess").replaceChildren();
  find("scene-text").focus({ preventScroll: true });
  wasShown = "";
  if (getComputedStyle(find("scenes")).position === "sticky") find("picture").scrollIntoView(); // the lanes, and the scene below
}

function close(end) {
  const within = isFocused();
  script = null;
  highlight();
  delete find("scenes").dataset.playing;
  find("scene-text").append(element("p", { textContent: end, className: "end" }));
  if (within) find("scene-buttons").firstElementChild.focus();
}

const say = (...texts) => find("scene-text").replaceChildren(...texts.map((text) => element("p", { textContent: text })));

// The focus follows the scene only if it is there already, or nowhere.
const isFocused = () => document.activeElement === document.body || find("scenes").contains(document.activeElement);

function show() {
  const { shown, steps, paused, signal } = script;
  const isStopping = signal.aborted;
  find("scene-pause").textContent = paused ? "Continue" : "Pause";
  find("scene-pause").hidden = reducedMotion.matches; // the steps wait anyway
  find("scene-stop").disabled = isStopping;
  find("scene-stop").textContent = isStopping ? "Stopping…" : "Stop";
  if (!shown) return;
  const { number, phase } = shown;
  find("scene-step").textContent = `Step ${number} of ${steps.length}`;
  find("scene-progress").max = steps.length;
  find("scene-progress").value = number;
  find("scene-back").disabled = isStopping || !script.canGoBack;
  find("scene-next").disabled = isStopping || !script.canGoOn;
  find("scene-next").textContent = number === steps.length && phase === "seen" ? "Finish" : "Next";
  find("scene-pause").disabled = isStopping;
  highlight(shown.at);
  const now = `${number} ${phase}`;
  if (now !== wasShown) tell(shown);
  wasShown = now;
}

function tell({ now, look, guess, chosen, right, seen, phase }) {
  const within = isFocused();
  const parts = { now, look, ask: guess?.ask, seen, verdict: seen && guess ? verdict(guess, chosen, right) : "" };
  find("scene-text").replaceChildren(...Object.entries(parts).filter(([, text]) => text)
    .map(([name, text]) => element("p", { id: `scene-${name}`, className: name, textContent: text.replaceAll("lab14-", "") }))); // as on the lanes
  find("scene-guess").hidden = !guess;
  find("scene-guess").classList.toggle("answered", phase === "seen");
  find("scene-guess").replaceChildren(...(guess?.choices ?? []).map((text, index) => choice(text, index, { chosen, right, phase })));
  if (within) focus(phase);
  find("scenes").scrollTop = seen && guess ? find("scene-ask").offsetTop : 0; // what is new, where not everything fits
}

function focus(phase) {
  if (!script.isLatest) return find("scene-back").disabled && find("scene-next").focus();
  const place = { guess: "scene-guess", acting: "scene-text", seen: "scene-next" }[phase];
  find(place).focus({ preventScroll: true });
}

const verdict = ({ choices }, chosen, right) =>
  chosen === right ? "Your guess was right." : `Your guess was “${choices[chosen]}”; right is “${choices[right]}”.`;

function choice(text, index, { chosen, right, phase }) {
  const mark = right === index ? "✓ " : phase === "seen" && chosen === index ? "✕ " : chosen === index ? "→ " : "";
  const button = element("button", { type: "button", textContent: `${mark}${text}`, disabled: phase !== "guess" });
  if (chosen === index) button.classList.add("chosen");
  if (right !== null) button.classList.add(right === index ? "right" : "other");
  button.addEventListener("click", () => script.choose(index));
  return button;
}
