"""How likely a read is stale, by the time since its write: measured, beside what the models predict."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any, NamedTuple

import numpy as np

from broker.delay.curve import Replicated
from lab.experiments.agenda import Agenda
from lab.experiments.run import THREADS, Result, Run, now, rmse, rounded, spread
from lab.experiments.site import SiteError
from nodes.experiments.spec import Staleness
from nodes.peers import Ask, PeerError

_WARM_UP_SECONDS_MAX = 10.0
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
        left out.
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
        if not np.isnan(predicted).all():
            curve |= {"predicted": rounded(mean(predicted)), "rmse": rmse(mean(stale), mean(predicted))}
        return curve


def measure(spec: Staleness, run: Run) -> Result:
    """Write and read at random moments. Raises ``SiteError`` or ``Stopped``."""
    models = run.replicated(spec.rate)
    urls = {name: url for name, url in run.site.replicas().items() if name in models}
    if not urls:
        raise SiteError("no replica is registered")
    horizon_ms = spec.horizon_ms or 3 * max(1.0, *(found.model.mean_ms for found in models.values()))
    measured = Measured(spec, horizon_ms, list(urls))
    load = _Load(spec, run, horizon_ms=horizon_ms, urls=list(urls.values()), measured=measured)
    warm_up_ms = max(found.model.quantile_ms(_WARM_UP_SHARE) for found in models.values())
    rate = load.perform(min(_WARM_UP_SECONDS_MAX, warm_up_ms / 1000))
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

    def __init__(self, spec: Staleness, run: Run, *, horizon_ms: float, urls: list[str], measured: Measured) -> None:
        self.agenda = Agenda(THREADS, now)
        self._spec = spec
        self._run = run
        self._horizon_ms = horizon_ms
        self._urls = urls
        self._measured = measured
        self._random = Random(spec.seed)  # noqa: S311 - to be repeated, not to be secret
        self._places = list(itertools.product(range(len(urls)), range(spec.steps)))
        # A key is written again only when nobody reads for its former write any more.
        self._keys = 1 + int(_KEYS_PER_HORIZON * spec.rate * horizon_ms / 1000)
        self._planned = 0
        self._owed = 0.0
        self._measuring = False
        self._ended_at: float | None = None

    def perform(self, warm_up_seconds: float) -> float:
        """Do it all; the writes a second that there were. Raises ``SiteError`` or ``Stopped``."""
        began = now()
        total_seconds = warm_up_seconds + self._spec.seconds + self._horizon_ms / 1000

        def progress() -> tuple[float, Result]:
            return (now() - began) / total_seconds, self._measured.figures()

        epoch, first = self._run.site.head()
        self.agenda.at(began, self._tell_time)
        self.agenda.at(began, partial(self._write, 0, began))
        self.agenda.at(began + warm_up_seconds, self._measure_from_here)
        self._run.perform(self.agenda, progress)
        epoch_now, last = self._run.site.head()
        if epoch_now != epoch:
            raise SiteError("the lab was reset meanwhile")
        return (last - first) / max(0.001, (self._ended_at or now()) - began)

    def _measure_from_here(self) -> None:
        self._measuring = True

    def _tell_time(self) -> None:
        """Keep to the log's clock, by which the writes are dated."""
        self._run.clock.measure()
        if self._ended_at is None:
            self.agenda.at(now() + _CLOCK_SECONDS, self._tell_time)

    def _write(self, number: int, due: float) -> None:
        if self._planned >= self._spec.reads:
            self._ended_at = due
            return
        reads = self._draw() if self._measuring else []
        after = due + self._random.expovariate(self._spec.rate)
        # From here on the next write may begin: this one's answer must not hold it up.
        self.agenda.at(after, partial(self._write, number + 1, after))
        key = f"experiment-{number % self._keys}"
        ask = Ask(f"{self._run.site.primary_url}/data", "POST", body={"key": key, "value": number}, wait_ms=6000)
        try:
            reply = self._run.site.peers.ask(ask)
        except PeerError as error:
            self._measured.errors.append(str(error))
            return
        if reply.status != 200:
            self._measured.errors.append(str(reply.body.get("detail")))
            return
        written = reply.body
        at_us = (datetime.fromisoformat(written["write_timestamp"]) - _EPOCH) // timedelta(microseconds=1)
        here = now() - (self._run.clock.now_us() - at_us) / 1e6
        for replica, t_ms in reads:
            self.agenda.at(here + t_ms / 1000, partial(self._read, replica, key, written, at_us))

    def _draw(self) -> list[tuple[int, float]]:
        """Which replicas to read after this write, and when: places drawn without repetition, a moment within each."""
        self._owed += self._spec.reads_per_second / self._spec.rate
        count = min(int(self._owed), self._spec.reads - self._planned, len(self._places))
        self._owed -= int(self._owed)
        self._planned += count
        step_ms = self._horizon_ms / self._spec.steps
        places = self._random.sample(self._places, count)
        return [(replica, (step + self._random.random()) * step_ms) for replica, step in places]

    def _read(self, replica: int, key: str, written: dict[str, Any], at_us: int) -> None:
        began_us = self._run.clock.now_us()
        try:
            reply = self._run.site.peers.ask(Ask(f"{self._urls[replica]}/data/{key}"))
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
