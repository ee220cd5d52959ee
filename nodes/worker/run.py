"""One run of an experiment: what its kind needs to do it, and a way out at any time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from broker.clock import LogClock
from broker.delay.prediction import Replicated
from nodes.experiments.queue import Stop
from nodes.experiments.spec import REQUESTS_AT_ONCE
from nodes.worker.agenda import Agenda
from nodes.worker.target import Target

Result = dict[str, Any]
_REPORT_SECONDS = 0.5


class Stopped(Exception):
    """Raised in a run that was told to end."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.reason)
        self.stop = stop


class Run:
    """What a kind of experiment is given. ``report`` hears of progress, 0 to 1, and of the result so far.

    ``now`` is the clock of every agenda, in seconds.
    """

    def __init__(
        self,
        target: Target,
        clock: LogClock,
        report: Callable[[float, Result | None], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self.clock = clock
        self.now = now
        self._report = report
        self._lock = threading.Lock()
        self._stop: Stop | None = None
        self._agenda: Agenda | None = None
        self._span = (0.0, 1.0)

    def stop(self, stop: Stop) -> None:
        """End the run, from any thread."""
        with self._lock:
            self._stop = self._stop or stop
            if self._agenda is not None:
                self._agenda.stop()

    def check(self) -> None:
        """Raises ``Stopped`` where the run was told to end."""
        if self._stop is not None:
            raise Stopped(self._stop)

    def part(self, number: int, count: int) -> None:
        """What comes next is one of so many parts of the whole."""
        self._span = (number / count, 1 / count)

    def say(self, progress: float, result: Result | None = None) -> None:
        """Report progress of this part."""
        begin, length = self._span
        self._report(begin + length * min(1.0, progress), result)

    def agenda(self) -> Agenda:
        """An empty agenda."""
        return Agenda(REQUESTS_AT_ONCE, self.now)

    def perform(self, agenda: Agenda, progress: Callable[[], tuple[float, Result | None]]) -> None:
        """Run an agenda to its end, and report meanwhile. Raises ``Stopped``."""
        with self._lock:
            self._agenda = agenda
        self.check()
        done = threading.Event()

        def report() -> None:
            while not done.wait(_REPORT_SECONDS):
                self.say(*progress())

        reporting = threading.Thread(target=report, name="progress", daemon=True)
        reporting.start()
        try:
            agenda.run()
        finally:
            done.set()
            reporting.join()
            self._agenda = None
        self.check()

    def replicated(self, rate: float) -> dict[str, Replicated]:
        """The replicas as a prediction sees them, by id, with the settings in force and so many writes a second."""
        return {name: Replicated(found.model, found.order, rate) for name, found in self.target.settings().items()}


def moments(random: Random, count: int, rate: float) -> list[float]:
    """Random moments in seconds: a Poisson process of ``rate`` a second that has ``count`` events.

    Given their number, such events are distributed evenly. So the last comes within ``count / rate`` seconds,
    and how long an experiment takes is known ahead.
    """
    return sorted(random.uniform(0, count / rate) for _ in range(count))


def rmse(measured: Any, predicted: Any) -> float:
    """The root of the mean squared difference."""
    return round(float(np.sqrt(np.mean((np.asarray(measured) - np.asarray(predicted)) ** 2))), 5)


def rounded(numbers: Any, digits: int = 5) -> list[float]:
    """Numbers as they go into a result."""
    return [round(float(number), digits) for number in numbers]
