"""One run of an experiment: the running lab, the measuring tools of its kind, and a stop at any time."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from broker.clock import LogClock
from broker.delay.models import from_json
from broker.delay.prediction import Replicated
from broker.registry import Settings
from nodes.experiments.queue import Stop
from nodes.experiments.spec import REQUESTS_AT_ONCE
from nodes.http.peers import Ask, Peers, Reply, failure
from nodes.runtime.config import WorkerConfig
from nodes.worker.open_loop import OpenLoop

Result = dict[str, Any]
Progress = Callable[[], tuple[float, Result | None]]
_REPORT_SECONDS = 0.5


class TargetError(Exception):
    """Raised when a node refuses or does not answer a request that an experiment needs."""


class Target:
    """The lab that an experiment measures. Methods raise ``TargetError``."""

    def __init__(self, config: WorkerConfig, peers: Peers) -> None:
        self.primary_url = config.primary_url
        self.client_url = config.client_url
        self.peers = peers
        self._admin = {"Authorization": f"Bearer {config.admin_token}"} if config.admin_token else {}

    def replicas(self) -> dict[str, str]:
        found = self.require(Ask(f"{self.primary_url}/replicas")).body["replicas"]
        return {replica["replica_id"]: replica["url"] for replica in found}

    def head(self) -> tuple[int, int]:
        """Epoch and version of the newest write."""
        found = self.require(Ask(f"{self.primary_url}/version")).body
        return found["epoch"], found["version"]

    def settings(self) -> dict[str, Settings]:
        found = self.require(Ask(f"{self.primary_url}/admin/replication-delays", headers=self._admin)).body
        acks, reads, orders, seeds = found["ack_models"], found["read_models"], found["orders"], found["seeds"]

        def of(url: str, model: Any) -> Settings:
            return Settings(from_json(model), from_json(acks[url]), orders[url], seeds[url], from_json(reads[url]))

        return {str(urlsplit(url).hostname): of(url, model) for url, model in found["models"].items()}

    def replicated(self, rate: float) -> dict[str, Replicated]:
        """The replicas for a prediction, by id, with the current settings and ``rate`` writes per second."""
        return {name: Replicated(found.delay, found.order, rate) for name, found in self.settings().items()}

    def change(self, replica: str, settings: dict[str, Any]) -> None:
        body = {"replica": replica, **settings}
        self.require(Ask(f"{self.primary_url}/admin/replication-delay", "POST", body=body, headers=self._admin))

    def require(self, ask: Ask) -> Reply:
        reply = self.peers.attempt(ask)
        if isinstance(reply, Reply) and reply.status == 200:
            return reply
        raise TargetError(f"{ask.url}: {failure(reply)}")


class Stopped(Exception):
    """Raised in a run that was stopped."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.reason)
        self.stop = stop


@dataclass
class Run:
    """The lab to measure, and reports of progress from 0 to 1; ``now``: the clock of every open loop, in seconds."""

    target: Target
    clock: LogClock
    report: Callable[[float, Result | None], None]
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Stop | None = None
        self._loop: OpenLoop | None = None
        self._part = (0, 1)

    def stop(self, stop: Stop) -> None:
        with self._lock:
            self._stop = self._stop or stop
            if self._loop is not None:
                self._loop.stop()

    def part(self, number: int, count: int, result: Result) -> None:
        self._part = (number, count)
        self._say(0.0, result)

    def _say(self, progress: float, result: Result | None) -> None:
        number, count = self._part
        self.report((number + min(1.0, progress)) / count, result)

    def loop(self) -> OpenLoop:
        return OpenLoop(REQUESTS_AT_ONCE, self.now)

    def perform(self, loop: OpenLoop, progress: Progress) -> list[float]:
        """Run the loop to its end; return how many milliseconds each task was late. Raises ``Stopped``."""
        with self._lock:
            self._loop = loop
        self._check()
        done = threading.Event()

        def report() -> None:
            while not done.wait(_REPORT_SECONDS):
                self._say(*progress())

        reporting = threading.Thread(target=report, name="progress", daemon=True)
        reporting.start()
        try:
            loop.run()
        finally:
            done.set()
            reporting.join()
            self._loop = None
        self._check()
        return [late * 1000 for late in loop.late_seconds]

    def at_moments(self, load: tuple[int, int, float], task: Callable[[int], None], progress: Progress) -> list[float]:
        """Perform a numbered task at random times; ``load`` is seed, count and rate. Returns and raises as above."""
        seed, count, rate = load
        loop, start = self.loop(), self.now()
        for number, moment in enumerate(moments(Random(seed), count, rate)):  # noqa: S311 - repeatable, not secret
            loop.at(start + moment, partial(task, number))
        return self.perform(loop, progress)

    def ask(self, ask: Ask, errors: list[str], *, or_missing: bool = False) -> Reply | None:
        """A node's response with status 200, or for a missing key; a failure is added to ``errors``."""
        reply = self.target.peers.attempt(ask)
        if isinstance(reply, Reply):
            missing = reply.status == 404 and "position" in reply.body
            if reply.status == 200 or (or_missing and missing):
                return reply
        errors.append(failure(reply))
        return None

    def _check(self) -> None:
        if self._stop is not None:
            raise Stopped(self._stop)


def moments(random: Random, count: int, rate: float) -> list[float]:
    """Times in seconds of the ``count`` events of a Poisson process with ``rate`` per second.

    Given their number, such events are uniformly distributed, so the last one is within ``count / rate`` seconds.
    """
    return sorted(random.uniform(0, count / rate) for _ in range(count))


def failures(errors: list[str]) -> Result:
    return {"errors": len(errors), "error": errors[-1] if errors else None}


def rmse(measured: Any, predicted: Any) -> float:
    return round(float(np.sqrt(np.mean((np.asarray(measured) - np.asarray(predicted)) ** 2))), 5)


def rounded(numbers: Any, digits: int = 5) -> list[float]:
    return [round(float(number), digits) for number in numbers]
