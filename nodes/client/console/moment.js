// The moment that the page shows: the present, an earlier one while it is paused, or that of a recording that plays. All
// but the present are replays of recorded messages, so that a moment looks the same here, in a link and in a file.

import { find } from "./dom.js";
import { Recording, Replay } from "./recording.js";
import { Timeline } from "./timeline.js";

const LINK = /^[0-9]{1,15}$/; // milliseconds by the log server's clock

export const live = new Timeline();
const recording = new Recording();
let replay = null; // what is shown instead of the present
let held = null; // when the pause began; "Step back" counts from it
let isFile = false; // whether the replay is that of a file
let played = null; // the time of the recording that plays, as a distance from performance.now()
let changed = () => {};

// What to draw, and until when; `end` is null until something is known.
export function shown() {
  if (played !== null) play(performance.now() + played);
  return replay ? { timeline: replay.timeline, end: replay.at } : { timeline: live, end: live.now() };
}

export const isPaused = () => held !== null;
export const isLive = () => replay === null;

// Take a message of the feed. One that arrived after the pause began, but was sent before, belongs to the paused moment.
export function take(text) {
  const message = JSON.parse(text);
  live.take(message);
  recording.add(text, message);
  if (isPaused() && message.now_ms <= held) replay.add(text, message);
  return message;
}

// The messages up to the moment shown.
export const recorded = () => (replay?.recording ?? recording).endingAt(Math.floor(shown().end));

// Show a recording from its start, or paused at a time.
export function open(file, at = null) {
  isFile = true;
  replay = new Replay(file, at ?? file.start);
  if (at === null) resume();
  else hold(at);
}

// Show the moment at a time, also while its messages are still to arrive.
export function hold(at) {
  held = at;
  played = null;
  if (!isFile) replay = new Replay(recording.upTo(at), at);
  find("back").max = isFile ? Math.max(0, (at - replay.recording.start) / 1000) : 50;
  show();
}

export function resume() {
  held = null;
  if (isFile) played = (replay.at >= replay.recording.end ? replay.recording.start : replay.at) - performance.now();
  else replay = null;
  if (played !== null) replay.seek(performance.now() + played);
  show();
}

function play(at) {
  replay.advance(Math.min(at, replay.recording.end));
  if (at >= replay.recording.end) hold(replay.recording.end);
}

function show() {
  find("pause").setAttribute("aria-pressed", String(isPaused()));
  find("pause").textContent = isPaused() ? "Resume" : "Pause";
  find("back").disabled = !isPaused();
  find("back").value = 0;
  stepBack();
}

function stepBack() {
  const seconds = Number(find("back").value);
  if (isPaused()) replay.seek(held - seconds * 1000);
  find("back-text").textContent = seconds ? `${seconds} s earlier` : isPaused() ? "this moment" : "now";
  changed();
}

// `draw`: called when another moment is to be shown.
export function start(draw) {
  changed = draw;
  find("pause").addEventListener("click", () => {
    const { end } = shown();
    find("notice").textContent = "";
    if (isPaused()) resume();
    else if (end !== null) hold(Math.floor(end));
  });
  find("back").addEventListener("input", stepBack);
}

// The address of the page paused at the moment shown; null until something is known.
export function link(span) {
  const { end } = shown();
  if (end === null) return null;
  const replaying = isFile ? "replay&" : "";
  return `${location.origin}/?${replaying}at=${Math.floor(end)}&span=${span}`;
}

// Show the moment of a link, as far as its messages are kept. Returns what to say about it.
export function holdKept(at, span, { from_ms: from, until_ms: until }) {
  if (at < from) return "This moment is no longer kept: the lab keeps the last minute, while a page is open.";
  if (at > until) return "This moment has not come yet.";
  hold(at);
  return at - span * 1000 < from ? `Only the last ${((at - from) / 1000).toFixed(1)} s before this moment are kept.` : "";
}

// The moment that an address asks for: { at, error }, both null if it asks for none.
export function asked(search) {
  const at = new URLSearchParams(search).get("at");
  if (at === null) return { at: null, error: null };
  if (!LINK.test(at)) return { at: null, error: `This link has no valid moment: “${at.slice(0, 40)}” is not a time in milliseconds.` };
  return { at: Number(at), error: null };
}
