"""Partial quorums: the probability that a read of r replicas misses a write that w replicas have acknowledged."""

import itertools
import math
import queue
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, NamedTuple

import numpy as np

from broker.delay.quorum import Floats, Outcome, Ways, simulate
from broker.delay.quorum import Quorum as Model
from broker.registry import Settings
from broker.stats import quantile_of_sorted, spread
from nodes.experiments.spec import HORIZON_MS_UNLESS_GIVEN, WARM_UP_SECONDS_MAX, Quorum
from nodes.http.peers import Ask
from nodes.worker.curve import curve, microseconds
from nodes.worker.open_loop import OpenLoop
from nodes.worker.run import Result, Run, TargetError, failures, moments, rounded

TRIALS = 1_000_000  # of the simulation: its noise is below 0.1 %
_WARM_UP_SHARE = 0.999  # of the delays are over when the warm-up ends
_CLOCK_SECONDS = 2.0  # between two measurements of the log's clock
_MARGIN_MS = 2000
_PAGE = 5000  # acknowledgements in one response
_NEWEST = (1, 2, 3, 5, 10)


class Written(NamedTuple):
    """``returned_us``: when the write returned to its caller, by the log's clock."""

    version: int
    position: str
    returned_us: int


class Read(NamedTuple):
    """``at_us``: when the replicas' stores would be read without read delays, on average, by the log's clock."""

    version: int
    at_us: float


class Requests:
    """Writes with w acknowledgements and reads of r replicas; how long they take, and how they fail."""

    def __init__(self, spec: Quorum, run: Run) -> None:
        self.write_ms: list[float] = []
        self.read_ms: list[float] = []
        self.errors: list[str] = []
        self._spec, self._run = spec, run

    def write(self, key: str, value: int) -> Written | None:
        spec, run = self._spec, self._run
        url = f"{run.target.primary_url}/data?acks={spec.w}&timeout_ms={spec.timeout_ms}"
        ask = Ask(url, "POST", body={"key": key, "value": value}, wait_ms=spec.timeout_ms + _MARGIN_MS)
        started = run.now()
        if (reply := run.ask(ask, self.errors)) is None:
            return None
        written = Written(reply.body["version"], reply.body["position"], run.clock.now_us())
        if reply.body["acks_reached"] < spec.w:
            self.errors.append(f"{reply.body['acks_reached']} of {spec.w} acknowledgements within {spec.timeout_ms} ms")
            return None
        self.write_ms.append((run.now() - started) * 1000)
        return written

    def read(self, key: str) -> Read | None:
        spec, run = self._spec, self._run
        url = f"{run.target.client_url}/read/{key}?level=quorum&r={spec.r}&timeout_ms={spec.timeout_ms}"
        started = run.now()
        reply = run.ask(Ask(url, wait_ms=spec.timeout_ms + _MARGIN_MS), self.errors, or_missing=True)
        if reply is None:
            return None
        self.read_ms.append((run.now() - started) * 1000)
        asked = reply.body["asked"].values()
        arrivals_us = (microseconds(one["read_at"]) - one["read_delay_ms"] * 1000 for one in asked)
        return Read(reply.body["version"], sum(arrivals_us) / len(asked))


class Acknowledged:
    """When writes had w acknowledgements, as the replicas report it afterwards.

    That is when the write returns in the model; its caller learns of it later, on a busy machine by milliseconds.
    """

    def __init__(self, w: int, run: Run) -> None:
        self._w, self._run = w, run
        self._times_us: dict[str, list[int]] = {}
        self._cursors = {url: self._page(url, "limit=1")["cursor"] for url in run.target.replicas().values()}

    def read(self) -> None:
        """Ask the replicas for what they have acknowledged since the start. Raises ``TargetError``."""
        for url, start in self._cursors.items():
            cursor, found = start, [None]
            while found:
                page = self._page(url, f"cursor={cursor}&limit={_PAGE}")
                cursor, found = page["cursor"], page["acknowledged"]
                for entry in found:
                    self._times_us.setdefault(entry["position"], []).append(microseconds(entry["acknowledged_at"]))

    def at_us(self, written: Written) -> int:
        """The moment, or if a replica no longer knows it, when the write returned to its caller."""
        times_us = sorted(self._times_us.get(written.position, []))
        return times_us[self._w - 1] if len(times_us) >= self._w else written.returned_us

    def _page(self, url: str, query: str) -> Result:
        return self._run.target.require(Ask(f"{url}/acknowledged?{query}")).body


class OwnKeys:
    """Writes of a key each, followed by reads: how stale they are, by the time since the write returned."""

    def __init__(self, spec: Quorum, run: Run, requests: Requests, horizon_ms: float) -> None:
        self.reads: list[tuple[Written, Read]] = []
        self._spec, self._run, self._requests, self._horizon_ms = spec, run, requests, horizon_ms
        self._free: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._names = itertools.count()
        self.seconds = 0.0

    def schedule(self, loop: OpenLoop, started: float, warm_up_seconds: float) -> float:
        """Schedule the writes; return the seconds until the last one."""
        spec, random = self._spec, Random(self._spec.seed)  # noqa: S311 - repeatable, not secret
        warm_up = math.ceil(spec.rate * warm_up_seconds)
        self.seconds = (warm_up + spec.writes) / spec.rate
        for number, moment in enumerate(moments(random, warm_up + spec.writes, spec.rate), -warm_up):
            loop.at(started + moment, partial(self._write, loop, number, self._draw(random, number)))
        return self.seconds

    def times_ms(self, acknowledged: Acknowledged) -> Any:
        """When each read arrived at the replicas, since its write had its acknowledgements."""
        return np.array([(read.at_us - acknowledged.at_us(written)) / 1000 for written, read in list(self.reads)])

    def stale(self) -> Any:
        return np.array([read.version < written.version for written, read in list(self.reads)], dtype=int)

    def figures(self, acknowledged: Acknowledged, outcome: Outcome | None) -> Result:
        """The measured curve, and with ``outcome`` the predicted one."""
        t_ms = self.times_ms(acknowledged)
        stale = self.stale()[: len(t_ms)]
        predicted = None if outcome is None else 1 - np.searchsorted(outcome.consistent_after, t_ms, "right") / TRIALS
        edges = np.linspace(0, self._horizon_ms, self._spec.steps + 1)
        return {"stale": curve(edges, t_ms, stale, predicted), "reads": len(t_ms)}

    def _draw(self, random: Random, number: int) -> list[float]:
        """When to read after a write, in milliseconds since its return. A warm-up's number is negative."""
        if number < 0:
            return []
        before, after = (count * self._spec.reads // self._spec.writes for count in (number, number + 1))
        step_ms = self._horizon_ms / self._spec.steps
        return [(step + random.random()) * step_ms for step in random.sample(range(self._spec.steps), after - before)]

    def _write(self, loop: OpenLoop, number: int, reads_ms: list[float]) -> None:
        key = self._key()
        if (written := self._requests.write(key, number)) is None:
            return  # the write can still arrive, so its key is not used again
        returned = self._run.now() - (self._run.clock.now_us() - written.returned_us) / 1e6
        last = self._counter(len(reads_ms), partial(self._free.put, key))
        for t_ms in reads_ms:
            loop.at(returned + t_ms / 1000, partial(self._read, key, written, last))

    def _read(self, key: str, written: Written, done: Callable[[], None]) -> None:
        if (read := self._requests.read(key)) is not None:
            self.reads.append((written, read))
        done()

    def _key(self) -> str:
        """A key whose last read is over."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return f"experiment-quorum-{next(self._names)}"

    @staticmethod
    def _counter(count: int, at_last: Callable[[], None]) -> Callable[[], None]:
        """A function that calls another at its last call, from whichever thread."""
        if count == 0:
            at_last()
        calls = itertools.count(1)
        return lambda: at_last() if next(calls) == count else None


class OneKey:
    """Writes of one key, and reads of it at random moments: how many versions they miss."""

    KEY = "experiment-quorum"

    def __init__(self, spec: Quorum, run: Run, requests: Requests) -> None:
        self.written: list[Written] = []
        self.reads: list[Read] = []
        self._spec, self._run, self._requests = spec, run, requests

    def schedule(self, loop: OpenLoop, started: float, warm_up_seconds: float) -> float:
        """Schedule the writes and the reads; return the seconds until the last one."""
        spec, random = self._spec, Random(self._spec.seed + 1)  # noqa: S311 - repeatable, not secret
        seconds = warm_up_seconds + spec.one_key_reads / spec.reads_per_second
        for number, moment in enumerate(moments(random, math.ceil(spec.rate * seconds), spec.rate)):
            loop.at(started + moment, partial(self._write, number))
        for moment in moments(random, spec.one_key_reads, spec.reads_per_second):
            loop.at(started + warm_up_seconds + moment, self._read)
        return seconds

    def figures(self, acknowledged: Acknowledged, outcome: Outcome) -> Result:
        """P(a read shows one of the newest k versions), measured if there were reads, and predicted."""
        missing = self.missing(acknowledged)
        measured = {"measured": rounded((missing < k).mean() for k in _NEWEST)} if len(missing) else {}
        predicted = rounded(outcome.shows_newest(k) for k in _NEWEST)
        return {"k": list(_NEWEST), "reads": len(missing), **measured, "predicted": predicted}

    def _write(self, number: int) -> None:
        if (written := self._requests.write(self.KEY, number)) is not None:
            self.written.append(written)

    def _read(self) -> None:
        if (read := self._requests.read(self.KEY)) is not None:
            self.reads.append(read)

    def missing(self, acknowledged: Acknowledged) -> Any:
        """By how many versions each read was behind the newest version acknowledged when it arrived."""
        written = sorted(self.written)
        versions = [found.version for found in written]
        since_us = np.minimum.accumulate([acknowledged.at_us(found) for found in reversed(written)] or [0])[::-1]
        newest = np.searchsorted(since_us, [read.at_us for read in self.reads], "right")
        shown = np.searchsorted(versions, [read.version for read in self.reads], "right")
        return np.maximum(0, newest - shown)


def measure(spec: Quorum, run: Run) -> Result:
    """Write and read at random times. Raises ``TargetError`` or ``Stopped``."""
    replicas = _replicas(spec, run)
    mean_ms = max(1.0, *(found.delay.mean_ms for found in replicas))
    horizon_ms = spec.horizon_ms or min(3 * mean_ms, HORIZON_MS_UNLESS_GIVEN)
    warm_up_ms = max(found.delay.quantile_ms(_WARM_UP_SHARE) for found in replicas)
    warm_up_seconds = min(WARM_UP_SECONDS_MAX, warm_up_ms / 1000)
    requests, acknowledged = Requests(spec, run), Acknowledged(spec.w, run)
    own, one = OwnKeys(spec, run, requests, horizon_ms), OneKey(spec, run, requests)

    def figures(outcome: Outcome | None = None) -> Result:
        curves = own.figures(acknowledged, outcome)
        return {"n": len(replicas), "r": spec.r, "w": spec.w, **curves, **failures(requests.errors)}

    def perform(part: OwnKeys | OneKey) -> list[float]:
        loop, started = run.loop(), run.now()
        for moment in np.arange(0, part.schedule(loop, started, warm_up_seconds), _CLOCK_SECONDS):
            loop.at(started + moment, run.clock.measure)
        return run.perform(loop, lambda: ((len(own.reads) + len(one.reads)) / total, figures()))

    total = spec.reads + spec.one_key_reads
    _, before = run.target.head()
    late_ms = perform(own)
    rate = (run.target.head()[1] - before) / own.seconds
    late_ms += perform(one)
    acknowledged.read()
    ways = [Ways(found.delay, found.ack, found.read, order=found.order) for found in _replicas(spec, run)]
    outcome = simulate(Model(ways, spec.r, spec.w, rate, asks_all=False), trials=TRIALS, seed=spec.seed)
    return {
        **figures(outcome),
        "newest": one.figures(acknowledged, outcome),
        "write_ms": _beside(requests.write_ms, outcome.write_latency),
        "read_ms": _beside(requests.read_ms, outcome.read_latency),
        "rate": round(rate, 3),
        "late_ms": spread(late_ms),
        "raw": {
            "t_ms": rounded(own.times_ms(acknowledged), 2),
            "stale": own.stale().tolist(),
            "missing": one.missing(acknowledged).tolist(),
            "write_ms": rounded(requests.write_ms, 2),
            "read_ms": rounded(requests.read_ms, 2),
        },
    }


def _replicas(spec: Quorum, run: Run) -> list[Settings]:
    """The settings of the registered replicas. Raises ``TargetError`` if the quorums do not fit."""
    settings = run.target.settings()
    found = [settings[name] for name in run.target.replicas() if name in settings]
    if spec.n not in {None, len(found)}:
        more = f"start it with `lab up --replicas {spec.n}`, or leave n out"
        raise TargetError(f"n={spec.n}, but this lab has {len(found)} replicas; {more}")
    if max(spec.r, spec.w) > len(found):
        raise TargetError(f"r={spec.r} and w={spec.w} must be at most n={len(found)}, the number of replicas")
    return found


def _beside(measured_ms: list[float], predicted_ms: Floats) -> Result:
    """The measured latency, and the predicted one, which lacks the time for the requests themselves."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    predicted = {name: round(quantile_of_sorted(predicted_ms, share), 3) for name, share in shares.items()}
    return {"measured": spread(list(measured_ms)), "predicted": predicted}
