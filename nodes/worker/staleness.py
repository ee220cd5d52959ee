"""The probability that a read is stale, by the time since its write: measured, and predicted by the models."""

import itertools
import math
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, NamedTuple

import numpy as np

from broker.delay.prediction import Replicated
from broker.stats import spread
from nodes.experiments.spec import HORIZON_MS_UNLESS_GIVEN, WARM_UP_SECONDS_MAX, Staleness
from nodes.http.peers import Ask
from nodes.worker.curve import curve, microseconds
from nodes.worker.run import Result, Run, TargetError, failures, moments, rounded

_WARM_UP_SHARE = 0.999  # of the delays are over when the warm-up ends
_CLOCK_SECONDS = 2.0  # between two measurements of the log's clock
_KEYS_PER_HORIZON = 4


class Read(NamedTuple):
    """One read. ``t_ms``: since the write's commit, by the log's clock; ``version``: of the write."""

    t_ms: float
    replica: int
    stale: bool
    version: int


class Measured:
    def __init__(self, spec: Staleness, horizon_ms: float, replicas: list[str]) -> None:
        self.reads: list[Read] = []
        self.errors: list[str] = []
        self._replicas = replicas
        self._edges = np.linspace(0, horizon_ms, spec.steps + 1)

    def figures(self, replicated: dict[str, Replicated] | None = None) -> Result:
        """The measurements of each step that has reads, and with ``replicated`` the predictions for their times."""
        reads = list(self.reads)
        t_ms = np.array([read.t_ms for read in reads])
        stale = np.array([read.stale for read in reads], dtype=float)
        which = np.array([read.replica for read in reads], dtype=int)
        predicted = None if replicated is None else self._predicted(reads, replicated)

        def of(chosen: Any) -> Result:
            return curve(self._edges, t_ms[chosen], stale[chosen], None if predicted is None else predicted[chosen])

        replicas = {name: of(which == number) for number, name in enumerate(self._replicas)}
        return {"stale": of(which >= 0), "replicas": replicas, "reads": len(reads), **failures(self.errors)}

    def _predicted(self, reads: list[Read], replicated: dict[str, Replicated]) -> Any:
        models = [replicated[name] for name in self._replicas]
        return np.array([1 - models[read.replica].fresh(read.t_ms) for read in reads])


def measure(spec: Staleness, run: Run) -> Result:
    """Write and read at random times. Raises ``TargetError`` or ``Stopped``."""
    models = run.target.replicated(spec.rate)
    urls = {name: url for name, url in run.target.replicas().items() if name in models}
    if not urls:
        raise TargetError("no replica is registered")
    mean_ms = max(1.0, *(found.model.mean_ms for found in models.values()))
    horizon_ms = spec.horizon_ms or min(3 * mean_ms, HORIZON_MS_UNLESS_GIVEN)
    measured = Measured(spec, horizon_ms, list(urls))
    warm_up_ms = max(found.model.quantile_ms(_WARM_UP_SHARE) for found in models.values())
    rate, late_ms = _Load(spec, run, measured, list(urls.values()), horizon_ms, warm_up_ms).perform()
    result = measured.figures(run.target.replicated(rate))
    raw = list(zip(*measured.reads, strict=True)) or [(), (), (), ()]
    return {
        **result,
        "rate": round(rate, 3),
        "late_ms": spread(late_ms),
        "raw": {
            "replicas": list(urls),
            "t_ms": rounded(raw[0], 2),
            "replica": list(raw[1]),
            "stale": [int(stale) for stale in raw[2]],
            "version": list(raw[3]),
        },
    }


@dataclass
class _Load:
    spec: Staleness
    run: Run
    measured: Measured
    urls: list[str]
    horizon_ms: float
    warm_up_ms: float

    def __post_init__(self) -> None:
        spec, run, urls = self.spec, self.run, self.urls
        self._loop = run.loop()
        self._random = Random(spec.seed)  # noqa: S311 - repeatable, not secret
        self._places = list(itertools.product(range(len(urls)), range(spec.steps)))
        # A key is written again only after the last read of its previous write.
        self._keys = 1 + int(_KEYS_PER_HORIZON * spec.rate * self.horizon_ms / 1000)
        self._writes = spec.writes(len(urls))
        self._warm_up = math.ceil(spec.rate * min(WARM_UP_SECONDS_MAX, self.warm_up_ms / 1000))
        self._started = run.now()
        self._moments = moments(self._random, self._warm_up + self._writes, spec.rate)
        self._writing_seconds = len(self._moments) / spec.rate
        self._ends_at = self._started + self._writing_seconds + self.horizon_ms / 1000

    def perform(self) -> tuple[float, list[float]]:
        """Write and read; return the writes per second, and each lateness. Raises ``TargetError`` or ``Stopped``."""
        total_seconds = self._ends_at - self._started
        epoch, first = self.run.target.head()
        self._loop.at(self._started, self._measure_clock)
        self._loop.at(self._started + self._moments[0], partial(self._write, 0))
        late_ms = self.run.perform(
            self._loop, lambda: ((self.run.now() - self._started) / total_seconds, self.measured.figures())
        )
        epoch_now, last = self.run.target.head()
        if epoch_now != epoch:
            raise TargetError("the lab was reset during the experiment")
        return (last - first) / self._writing_seconds, late_ms

    def _measure_clock(self) -> None:
        self.run.clock.measure()
        if (again := self.run.now() + _CLOCK_SECONDS) < self._ends_at:
            self._loop.at(again, self._measure_clock)

    def _write(self, number: int) -> None:
        reads = self._draw(number - self._warm_up)
        if number + 1 < len(self._moments):
            # The next write can start now: it must not wait for this response.
            self._loop.at(self._started + self._moments[number + 1], partial(self._write, number + 1))
        key = f"experiment-{number % self._keys}"
        ask = Ask(f"{self.run.target.primary_url}/data", "POST", body={"key": key, "value": number}, wait_ms=6000)
        if (reply := self.run.ask(ask, self.measured.errors)) is None:
            return
        written = reply.body
        at_us = microseconds(written["write_timestamp"])
        here = self.run.now() - (self.run.clock.now_us() - at_us) / 1e6
        for replica, t_ms in reads:
            self._loop.at(here + t_ms / 1000, partial(self._read, replica, key, written, at_us))

    def _draw(self, number: int) -> list[tuple[int, float]]:
        """The replicas to read after a write, each with its delay in milliseconds. A warm-up's number is negative."""
        if number < 0:
            return []
        before, after = (count * self.spec.reads // self._writes for count in (number, number + 1))
        step_ms = self.horizon_ms / self.spec.steps
        places = self._random.sample(self._places, after - before)
        return [(replica, (step + self._random.random()) * step_ms) for replica, step in places]

    def _read(self, replica: int, key: str, written: dict[str, Any], at_us: int) -> None:
        started_us = self.run.clock.now_us()
        ask = Ask(f"{self.urls[replica]}/data/{key}")
        if (reply := self.run.ask(ask, self.measured.errors, or_missing=True)) is None:
            return
        # The store was read at some moment in between; the middle, after a read delay, is off by at most half the rest.
        t_ms = ((started_us + self.run.clock.now_us()) / 2 - at_us) / 1000 + reply.body["read_delay_ms"] / 2
        fresh = reply.status == 200 and reply.body["version"] >= written["version"]
        self.measured.reads.append(Read(t_ms, replica, not fresh, written["version"]))
