"""Performing one experiment: settings set, measured, settings put back, and said what came of it."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any, cast

from broker.clock import LogClock
from broker.connection import connect
from broker.errors import LogError
from broker.history import History
from nodes.experiments.queue import ExperimentQueue, Stop
from nodes.experiments.spec import (
    REQUESTS_AT_ONCE,
    Experiment,
    ExperimentBody,
    Levels,
    Spec,
    Staleness,
    Sweep,
    Windows,
)
from nodes.http.peers import Peers
from nodes.http.times import wall_timestamp
from nodes.runtime import config
from nodes.runtime.config import WorkerConfig
from nodes.worker import levels, staleness, sweep, windows
from nodes.worker.run import Result, Run, Stopped
from nodes.worker.target import Target, TargetError

_logger = logging.getLogger("lab.experiments")
_STOP_LOOK_SECONDS = 1
_REPORT_SECONDS = 30.0
_REPORT_PAUSE_SECONDS = 0.2
_PARTS = ("flask", "gunicorn", "redis", "rq", "numpy", "urllib3")


def perform(experiment: Experiment) -> None:
    """What RQ calls: perform an experiment. It reports by itself, failure included, and raises nothing."""
    chosen = cast("WorkerConfig", config.load("worker", os.environ))
    queue = ExperimentQueue(connect(chosen.redis_url, as_text=False), chosen.namespace)
    peers = Peers(REQUESTS_AT_ONCE, time.monotonic)
    try:
        Performance(queue, Target(chosen, peers), _clock(chosen), experiment).perform()
    finally:
        peers.close()


class Performance:
    """One experiment from its start to its end."""

    def __init__(self, queue: ExperimentQueue, target: Target, clock: LogClock, experiment: Experiment) -> None:
        self._queue = queue
        self._target = target
        self._spec = ExperimentBody.model_validate(experiment["spec"]).root
        self._experiment: Experiment = {**experiment, "state": "running", "started_at": wall_timestamp()}
        self._run = Run(target, clock, self._say)
        self._done = threading.Event()
        self._left: str | None = None

    def perform(self) -> None:
        """Do it. Whatever happens, the settings are put back before the end is reported."""
        self._say(0.0, None)
        stopper = threading.Thread(target=self._listen, name="stop", daemon=True)
        stopper.start()
        try:
            result = {**self._measure(), "versions": versions(self._queue)}
            end: dict[str, Any] = {"state": "finished", "progress": 1.0, "result": result}
        except Stopped as stopped:
            end = {"state": stopped.stop.state, "reason": stopped.stop.reason}
        except (TargetError, LogError) as error:
            end = {"state": "failed", "reason": str(error)}
        except Exception as error:  # whoever asked for the experiment has to hear of it
            _logger.exception("experiment %s failed", self._experiment["id"])
            end = {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
        finally:
            self._done.set()
        if self._left is not None:
            end["reason"] = "; ".join(filter(None, [end.get("reason"), self._left]))
        self._finish(end)

    def _measure(self) -> Result:
        if isinstance(self._spec, Sweep):
            return sweep.measure(self._spec, self._run, self._once)
        return self._once(self._spec, self._run)

    def _once(self, spec: Spec, run: Run) -> Result:
        with self._settings(spec):
            settings = {name: found.as_json() for name, found in self._target.settings().items()}
            return {**measure(spec, run), "settings": settings}

    @contextmanager
    def _settings(self, spec: Spec) -> Iterator[None]:
        """The settings of the experiment in force; those of before are remembered where a dead worker's are found."""
        before = {name: found.as_json() for name, found in self._target.settings().items()}
        unknown = sorted(set(spec.settings) - set(before))
        if unknown:
            raise TargetError(f"there is no replica {unknown[0]!r}; there are {', '.join(before) or 'none yet'}")
        self._queue.hold({name: before[name] for name in spec.settings})
        try:
            for name, found in spec.settings.items():
                self._target.change(name, found.model_dump(exclude_none=True))
            yield
        finally:
            try:
                put_back(self._queue, self._target)
            except (TargetError, LogError) as error:
                self._left = f"the settings of before could not be put back yet, which the worker tries again: {error}"

    def _say(self, progress: float, result: Result | None) -> None:
        self._experiment |= {"progress": round(progress, 4)}
        if result is not None:
            self._experiment["result"] = result
        with suppress(LogError):  # the next report, or the last, says it all
            self._queue.report(self._experiment)

    def _finish(self, end: Mapping[str, Any]) -> None:
        self._experiment = cast("Experiment", {**self._experiment, **end, "ended_at": wall_timestamp()})
        deadline = time.monotonic() + _REPORT_SECONDS
        while True:
            try:
                self._queue.report(self._experiment)
            except LogError as error:
                if time.monotonic() > deadline:
                    _logger.error("experiment %s cannot be reported: %s", self._experiment["id"], error)
                    return
                time.sleep(_REPORT_PAUSE_SECONDS)
            else:
                return

    def _listen(self) -> None:
        """Hear of it when somebody wants the experiment to end, or it takes longer than it may."""
        deadline = time.monotonic() + self._spec.seconds
        while not self._done.is_set():
            try:
                stop = self._queue.wait_for_stop(self._experiment["id"], _STOP_LOOK_SECONDS)
            except LogError:
                stop = None
                self._done.wait(_STOP_LOOK_SECONDS)  # because a refused connection fails at once
            if stop is not None:
                self._run.stop(stop)
            if time.monotonic() > deadline:
                self._run.stop(
                    Stop("failed", f"it took longer than {self._spec.seconds:,.0f} s, which is the most that it may")
                )


def put_back(queue: ExperimentQueue, target: Target) -> None:
    """Put back the settings that an experiment has left.

    Raises ``TargetError`` or ``LogError`` where that is not possible now; what is to be put back stays remembered.
    """
    if held := queue.held():
        present = target.settings()
        for name, settings in held.items():
            if name in present:  # a replica that is gone has no settings to put back
                target.change(name, settings)
        queue.hold({})


def versions(queue: ExperimentQueue) -> dict[str, str]:
    """The versions of everything that had a part in a measurement."""
    return {
        "lab": version("eventual-consistency-lab"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} processors",
        "log server": queue.server(),
        **{part: version(part) for part in _PARTS},
    }


def measure(spec: Spec, run: Run) -> Result:
    """Run an experiment of any kind but a sweep. Raises ``TargetError`` or ``Stopped``."""
    match spec:
        case Windows():
            return windows.measure(spec, run)
        case Staleness():
            return staleness.measure(spec, run)
        case Levels():
            return levels.measure(spec, run)
    raise TypeError(f"no way to measure {type(spec).__name__}")


def _clock(chosen: WorkerConfig) -> LogClock:
    return LogClock(History(connect(chosen.redis_url), chosen.namespace).now_us, time.monotonic_ns, time.time_ns)
