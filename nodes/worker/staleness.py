"""How likely a read is stale, by the time since its write: measured, beside what the models predict."""

from __future__ import annotations

import itertools
import math
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any, NamedTuple

import numpy as np

from broker.delay.prediction import Replicated
from broker.stats import spread
from nodes.experiments.spec import HORIZON_MS_UNLESS_GIVEN, WARM_UP_SECONDS_MAX, Staleness
from nodes.http.peers import Ask, PeerError
from nodes.worker.run import Result, Run, moments, rmse, rounded
from nodes.worker.target import TargetError

_WARM_UP_SHARE = 0.999
_CLOCK_SECONDS = 2.0
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")
_KEYS_PER_HORIZON = 4


class Read(NamedTuple):
    """One read: how long after the write's commit, by the log's clock, of which replica, whether it was stale.

    ``version``: of the write.
    """

    t_ms: float
    replica: int
    stale: bool
    version: int


class Measured:
    """The reads so far, in steps of the time since the write."""

    def __init__(self, spec: Staleness, horizon_ms: float, replicas: list[str]) -> None:
        self.reads: list[Read] = []
        self.errors: list[str] = []
        self._replicas = replicas
        self._edges = np.linspace(0, horizon_ms, spec.steps + 1)

    def figures(self, replicated: dict[str, Replicated] | None = None) -> Result:
        """The curve: what was measured in each step, and what is predicted for the very times of its reads.

        Without ``replicated`` nothing is predicted, which is for while the experiment runs. Steps without reads are
        left out, and where none has any there is no prediction either.
        """
        reads = list(self.reads)
        t_ms = np.array([read.t_ms for read in reads])
        which = np.array([read.replica for read in reads], dtype=int)
        stale = np.array([read.stale for read in reads], dtype=float)
        step = np.digitize(t_ms, self._edges) - 1
        inside = (step >= 0) & (step < len(self._edges) - 1)
        predicted = np.full(len(reads), np.nan)
        if replicated is not None:
            for number, name in enumerate(self._replicas):
                mine = which == number
                predicted[mine] = [1 - replicated[name].fresh(t) for t in t_ms[mine].tolist()]
        curves = {"all": inside} | {name: inside & (which == n) for n, name in enumerate(self._replicas)}
        found = {name: self._curve(step, chosen, t_ms, stale, predicted) for name, chosen in curves.items()}
        return {
            "stale": found.pop("all"),
            "replicas": found,
            "reads": len(reads),
            "errors": len(self.errors),
            "error": self.errors[-1] if self.errors else None,
        }

    def _curve(self, step: Any, chosen: Any, t_ms: Any, stale: Any, predicted: Any) -> Result:
        steps = len(self._edges) - 1
        count = np.bincount(step[chosen], minlength=steps)
        some = count > 0

        def mean(values: Any) -> Any:
            return np.bincount(step[chosen], weights=values[chosen], minlength=steps)[some] / count[some]

        curve = {"t_ms": rounded(mean(t_ms), 3), "reads": count[some].tolist(), "measured": rounded(mean(stale))}
        if some.any() and not np.isnan(predicted).all():
            curve |= {"predicted": rounded(mean(predicted)), "rmse": rmse(mean(stale), mean(predicted))}
        return curve


def measure(spec: Staleness, run: Run) -> Result:
    """Write and read at random moments. Raises ``TargetError`` or ``Stopped``."""
    models = run.replicated(spec.rate)
    urls = {name: url for name, url in run.target.replicas().items() if name in models}
    if not urls:
        raise TargetError("no replica is registered")
    mean_ms = max(1.0, *(found.model.mean_ms for found in models.values()))
    horizon_ms = spec.horizon_ms or min(3 * mean_ms, HORIZON_MS_UNLESS_GIVEN)
    measured = Measured(spec, horizon_ms, list(urls))
    warm_up_ms = max(found.model.quantile_ms(_WARM_UP_SHARE) for found in models.values())
    load = _Load(
        spec,
        run,
        horizon_ms=horizon_ms,
        warm_up_seconds=min(WARM_UP_SECONDS_MAX, warm_up_ms / 1000),
        urls=list(urls.values()),
        measured=measured,
    )
    rate = load.perform()
    result = measured.figures(run.replicated(rate))
    raw = list(zip(*measured.reads, strict=True)) or [(), (), (), ()]
    return {
        **result,
        "rate": round(rate, 3),
        "late_ms": spread([late * 1000 for late in load.agenda.late_seconds]),
        "raw": {
            "replicas": list(urls),
            "t_ms": rounded(raw[0], 2),
            "replica": list(raw[1]),
            "stale": [int(stale) for stale in raw[2]],
            "version": list(raw[3]),
        },
    }


class _Load:
    """Writes, and the reads that each leads to."""

    def __init__(
        self,
        spec: Staleness,
        run: Run,
        *,
        horizon_ms: float,
        warm_up_seconds: float,
        urls: list[str],
        measured: Measured,
    ) -> None:
        self.agenda = run.agenda()
        self._spec = spec
        self._run = run
        self._horizon_ms = horizon_ms
        self._urls = urls
        self._measured = measured
        self._random = Random(spec.seed)  # noqa: S311 - to be repeated, not to be secret
        self._places = list(itertools.product(range(len(urls)), range(spec.steps)))
        # A key is written again only when nobody reads for its former write any more.
        self._keys = 1 + int(_KEYS_PER_HORIZON * spec.rate * horizon_ms / 1000)
        self._writes = spec.writes(len(urls))
        self._warm_up = math.ceil(spec.rate * warm_up_seconds)
        self._began = run.now()
        self._moments = moments(self._random, self._warm_up + self._writes, spec.rate)
        self._writing_seconds = len(self._moments) / spec.rate
        self._ends_at = self._began + self._writing_seconds + horizon_ms / 1000

    def perform(self) -> float:
        """Do it all; the writes a second that there were. Raises ``TargetError`` or ``Stopped``."""
        total_seconds = self._ends_at - self._began

        def progress() -> tuple[float, Result]:
            return (self._run.now() - self._began) / total_seconds, self._measured.figures()

        epoch, first = self._run.target.head()
        self.agenda.at(self._began, self._tell_time)
        self.agenda.at(self._began + self._moments[0], partial(self._write, 0))
        self._run.perform(self.agenda, progress)
        epoch_now, last = self._run.target.head()
        if epoch_now != epoch:
            raise TargetError("the lab was reset meanwhile")
        return (last - first) / self._writing_seconds

    def _tell_time(self) -> None:
        """Keep to the log's clock, by which the writes are dated."""
        self._run.clock.measure()
        if (again := self._run.now() + _CLOCK_SECONDS) < self._ends_at:
            self.agenda.at(again, self._tell_time)

    def _write(self, number: int) -> None:
        reads = self._draw(number - self._warm_up)
        if number + 1 < len(self._moments):
            # From here on the next write may begin: this one's answer must not hold it up.
            self.agenda.at(self._began + self._moments[number + 1], partial(self._write, number + 1))
        key = f"experiment-{number % self._keys}"
        ask = Ask(f"{self._run.target.primary_url}/data", "POST", body={"key": key, "value": number}, wait_ms=6000)
        try:
            reply = self._run.target.peers.ask(ask)
        except PeerError as error:
            self._measured.errors.append(str(error))
            return
        if reply.status != 200:
            self._measured.errors.append(str(reply.body.get("detail")))
            return
        written = reply.body
        at_us = (datetime.fromisoformat(written["write_timestamp"]) - _EPOCH) // timedelta(microseconds=1)
        here = self._run.now() - (self._run.clock.now_us() - at_us) / 1e6
        for replica, t_ms in reads:
            self.agenda.at(here + t_ms / 1000, partial(self._read, replica, key, written, at_us))

    def _draw(self, number: int) -> list[tuple[int, float]]:
        """Which replicas to read after the write of this number, and when.

        Places are drawn without repetition, and a moment within each. Writes of the warm-up have negative numbers.
        """
        if number < 0:
            return []
        before, after = (count * self._spec.reads // self._writes for count in (number, number + 1))
        step_ms = self._horizon_ms / self._spec.steps
        places = self._random.sample(self._places, after - before)
        return [(replica, (step + self._random.random()) * step_ms) for replica, step in places]

    def _read(self, replica: int, key: str, written: dict[str, Any], at_us: int) -> None:
        began_us = self._run.clock.now_us()
        try:
            reply = self._run.target.peers.ask(Ask(f"{self._urls[replica]}/data/{key}"))
        except PeerError as error:
            self._measured.errors.append(str(error))
            return
        ended_us = self._run.clock.now_us()
        if reply.status not in {200, 404} or "position" not in reply.body:
            self._measured.errors.append(str(reply.body.get("detail")))
            return
        # The store was read at some moment in between; the middle is wrong by at most half of the time it took.
        t_ms = ((began_us + ended_us) / 2 - at_us) / 1000
        fresh = reply.status == 200 and reply.body["version"] >= written["version"]
        self._measured.reads.append(Read(t_ms, replica, not fresh, written["version"]))
