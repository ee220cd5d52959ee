// Steps through a scene, whatever it shows and wherever: what is told so far, guesses, pause, back, next, stop.

const READ_MS_MIN = 4000; // to read a step before the next one
const READ_MS_PER_CHARACTER = 55;

// A step is { now, look, at, guess, run }: texts of what happens and what to look at, what to highlight meanwhile, a
// question with three choices, and its actions, which return { seen, right, at }: a text with what was measured, the
// index of the choice that was right, and what to highlight then.
export class Script {
  // `pace` scales the times for reading; `waits()`: whether the steps wait for next(); `changed()` shows the script.
  constructor(steps, { pace, waits, changed }) {
    this.steps = steps;
    this.told = []; // the steps so far, with what the user guessed and what was seen
    this.paused = false;
    this.movedAt = performance.now(); // the last time that a step or the user did something
    this._pace = pace;
    this._waits = waits;
    this._changed = changed;
    this._shown = 0;
    this._isNext = false;
    this._stop = new AbortController();
    this._wake = () => {};
  }

  get signal() {
    return this._stop.signal;
  }

  // The step that is shown; undefined before the first.
  get shown() {
    return this.told[this._shown];
  }

  get isLatest() {
    return this._shown >= this.told.length - 1;
  }

  get canGoBack() {
    return this._shown > 0;
  }

  // A step can be left when its result has been seen.
  get canGoOn() {
    return !this.isLatest || this.shown?.phase === "seen";
  }

  // Returns after the last step; throws the reason of stop(), or what its actions throw.
  async play() {
    for (const step of this.steps) {
      const record = { ...step, number: this.told.length + 1, chosen: null, seen: "", right: null, phase: "guess" };
      this.told.push(record);
      this._shown = this.told.length - 1;
      this._isNext = false;
      if (step.guess) await this._until(() => record.chosen !== null);
      this._enter(record, "acting");
      Object.assign(record, await step.run?.());
      this._enter(record, "seen");
      await this._until(() => this._isNext, () => this._readMs(record));
    }
  }

  choose(index) {
    if (this.shown?.phase !== "guess") return;
    this.shown.chosen = index;
    this._moved();
  }

  next() {
    if (!this.canGoOn) return;
    if (this.isLatest) this._isNext = true;
    else this._shown += 1;
    this._moved();
  }

  back() {
    if (this.canGoBack) this._shown -= 1;
    this._moved();
  }

  pause(paused) {
    this.paused = paused;
    this._moved();
  }

  stop(reason) {
    this._stop.abort(reason);
    this._moved();
  }

  // Look again at whether the steps wait.
  wake() {
    this._wake();
  }

  _moved() {
    this.movedAt = performance.now();
    this._changed();
    this._wake();
  }

  _enter(record, phase) {
    this.signal.throwIfAborted();
    record.phase = phase;
    this.movedAt = performance.now();
    this._changed();
  }

  _readMs({ now, look, guess, seen }) {
    if (this.paused || !this.isLatest || this._waits()) return null;
    const unread = guess ? seen : `${now}${look}${seen}`;
    return this._pace * Math.max(READ_MS_MIN, READ_MS_PER_CHARACTER * unread.length);
  }

  // Wait until the condition holds or a time without any change is over; a time of null is no time.
  async _until(condition, restMs = () => null) {
    this._changed();
    for (;;) {
      this.signal.throwIfAborted();
      if (condition() || !(await this._woken(restMs()))) return;
    }
  }

  _woken(ms) {
    return new Promise((resolve) => {
      const timer = ms === null ? null : setTimeout(() => resolve(false), ms);
      this._wake = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
  }
}
