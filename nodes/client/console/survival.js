// The Kaplan–Meier estimate of a survival curve: the share of durations longer than t, from durations of which some are
// only known to be longer than observed (right-censored).

// `ended` are complete durations, `censored` those still running; both in any order. The curve falls to `shares[i]` at
// `times[i]`. Nothing supports it beyond `until`, the longest duration, unless it has reached 0 there.
export function kaplanMeier(ended, censored) {
  const [ends, running] = [ended, censored].map((durations) => Float64Array.from(durations).sort());
  const times = [];
  const shares = [];
  let share = 1;
  let left = 0; // how many of `running` were observed for less than the current time
  for (let index = 0, next = 0; index < ends.length; index = next) {
    const time = ends[index];
    while (next < ends.length && ends[next] === time) next += 1;
    while (left < running.length && running[left] < time) left += 1;
    const atRisk = ends.length - index + running.length - left;
    share *= 1 - (next - index) / atRisk;
    times.push(time);
    shares.push(share);
  }
  const longest = Math.max(ends.at(-1) ?? 0, running.at(-1) ?? 0);
  return { times, shares, count: ends.length + running.length, until: times.length && share === 0 ? Infinity : longest };
}

// The lowest and the highest share of durations longer than t that the observations allow; equal where they support the
// curve.
export function beyond(curve, t) {
  const share = curve.shares[lastAt(curve.times, t)] ?? 1;
  return t <= curve.until && curve.count ? [share, share] : [0, share];
}

// The mean of the curves' bounds: P(stale) of a read from a random replica, one curve each.
export function meanBeyond(curves, t) {
  const bounds = curves.map((curve) => beyond(curve, t));
  return [0, 1].map((side) => bounds.reduce((sum, bound) => sum + bound[side], 0) / bounds.length);
}

// The shortest duration that at least this share of all durations does not exceed; null where nothing supports it.
export function percentile(curve, share) {
  const found = curve.shares.findIndex((longer) => longer <= 1 - share + 1e-9);
  return found < 0 ? null : curve.times[found];
}

// The index of the last number that is at most `limit` in an ascending list, or -1.
function lastAt(ascending, limit) {
  let [low, high] = [0, ascending.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
