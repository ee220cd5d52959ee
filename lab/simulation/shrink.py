"""The shortest failure: the fewest faults, and the earliest end, with which a run still violates the same rule.

Faults are left out in halves, quarters and so on down to single ones, as in delta debugging (Zeller and Hildebrandt,
"Simplifying and Isolating Failure-Inducing Input", IEEE TSE 2002). What is left in keeps its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab.simulation.run import Failure, simulate
from lab.simulation.schedule import Fault

_TRIALS_MAX = 80
_TRIED_SECONDS_MAX = 4 * 3600.0  # of simulated time in all trials


def shrink(failure: Failure, on_trial: Callable[[int], object] = lambda _: None) -> Failure:
    """Return the shortest failure that was found; ``on_trial`` receives the number of each run."""
    search = _Search(failure, on_trial)
    search.try_later_start()
    faults = list(search.best.faults)
    size = max(1, len(faults) // 2)
    while True:
        first = 0
        while first < len(faults):
            fewer = faults[:first] + faults[first + size :]
            if search.fails(fewer, search.end):
                faults = fewer
            else:
                first += size
        if size == 1:
            return search.best
        size //= 2


class _Search:
    def __init__(self, failure: Failure, on_trial: Callable[[int], object]) -> None:
        self.best = failure
        self._on_trial = on_trial
        self._trials, self._seconds = 0, 0.0

    @property
    def end(self) -> float:
        """The end of the round in which the best run fails."""
        found = self.best
        return next(each.end for each in found.pace.rounds(found.seconds) if each.end >= found.at_seconds)

    def fails(self, faults: Sequence[Fault], end: float) -> bool:
        """Run with these faults only, and keep the run if it fails in the same way."""
        if self._trials == _TRIALS_MAX or self._seconds + end > _TRIED_SECONDS_MAX:
            return False
        self._trials, self._seconds = self._trials + 1, self._seconds + end
        self._on_trial(self._trials)
        found = simulate(self.best.seed, end, faults, self.best.pace).failure
        if found is None or found.rule != self.best.rule:
            return False
        self.best = found
        return True

    def try_later_start(self) -> None:
        """Start the lab shortly before the failure, which seldom needs what happened hours before."""
        length = 2 * self.best.pace.round_seconds
        start = self.end - length
        if start > 0:
            later = [one._replace(at_seconds=one.at_seconds - start) for one in self.best.faults]
            self.fails([one for one in later if one.at_seconds >= 0], length)
