"""Performing one experiment: change the settings, measure, restore the settings, report the result."""

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from typing import Any, cast

from broker.clock import LogClock
from broker.errors import LogError
from broker.registry import Settings
from nodes.experiments import spec as specs
from nodes.experiments.queue import ExperimentQueue, Stop
from nodes.experiments.spec import Experiment, Spec, Sweep
from nodes.http.peers import Peers
from nodes.http.times import wall_timestamp
from nodes.runtime.config import WorkerConfig
from nodes.worker import levels, quorum, staleness, windows
from nodes.worker.run import Result, Run, Stopped, Target, TargetError

_logger = logging.getLogger("lab.experiments")
_STOP_LOOK_SECONDS = 1
_REPORT_SECONDS = 30.0  # before giving up on an unavailable log server
_REPORT_PAUSE_SECONDS = 0.2
_MEASURES: dict[type[Spec], Callable[[Any, Run], Result]] = {
    specs.Windows: windows.measure,
    specs.Staleness: staleness.measure,
    specs.Levels: levels.measure,
    specs.Quorum: quorum.measure,
}
_PARTS = ("flask", "gunicorn", "redis", "rq", "numpy", "urllib3")


def perform(config: WorkerConfig, queue: ExperimentQueue, clock: LogClock, experiment: Experiment) -> None:
    """Perform an experiment and report its outcome; a failure is reported, not raised."""
    with closing(Peers(specs.REQUESTS_AT_ONCE, time.monotonic)) as peers:
        Performance(queue, Target(config, peers), clock, experiment).perform()


class Performance:
    def __init__(self, queue: ExperimentQueue, target: Target, clock: LogClock, experiment: Experiment) -> None:
        self._queue = queue
        self._target = target
        self._spec = specs.ExperimentBody.model_validate(experiment["spec"]).root
        self._experiment: Experiment = {**experiment, "state": "running", "started_at": wall_timestamp()}
        self._run = Run(target, clock, self._report)
        self._done = threading.Event()
        self._not_restored: str | None = None

    def perform(self) -> None:
        """Perform it. The settings are restored before the end is reported."""
        self._report(0.0, None)
        threading.Thread(target=self._listen, name="stop", daemon=True).start()
        try:
            result = {**measure_all(self._spec, self._run, self._once), "versions": versions(self._queue)}
            end: dict[str, Any] = {"state": "finished", "progress": 1.0, "result": result}
        except Stopped as stopped:
            end = {"state": stopped.stop.state, "reason": stopped.stop.reason}
        except (TargetError, LogError) as error:
            end = {"state": "failed", "reason": str(error)}
        except Exception as error:  # the experiment must end with a reason
            _logger.exception("experiment %s failed", self._experiment["id"])
            end = {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
        finally:
            self._done.set()
        if self._not_restored is not None:
            end["reason"] = "; ".join(filter(None, [end.get("reason"), self._not_restored]))
        self._finish(end)

    def _once(self, spec: Spec, run: Run) -> Result:
        with self._settings(spec):
            settings = self._current()
            return {**measure(spec, run), "settings": settings}

    def _current(self) -> dict[str, Any]:
        def as_body(found: Settings) -> dict[str, Any]:
            models = {"model": found.delay, "ack_model": found.ack, "read_model": found.read}
            bodies = {name: model.as_json() for name, model in models.items()}
            return {**bodies, "order": found.order, "seed": found.seed}

        return {name: as_body(found) for name, found in self._target.settings().items()}

    @contextmanager
    def _settings(self, spec: Spec) -> Iterator[None]:
        """Change the settings and restore them; if the worker dies, the previous ones stay in the queue."""
        before = self._current()
        if unknown := sorted(set(spec.settings) - set(before)):
            raise TargetError(f"no replica {unknown[0]!r}; known: {', '.join(before) or 'none yet'}")
        self._queue.hold({name: before[name] for name in spec.settings})
        try:
            for name, found in spec.settings.items():
                self._target.change(name, found.model_dump(exclude_none=True))
            yield
        finally:
            try:
                restore(self._queue, self._target)
            except (TargetError, LogError) as error:
                self._not_restored = f"the previous settings are not restored yet; the worker will try again: {error}"

    def _report(self, progress: float, result: Result | None) -> None:
        self._experiment |= {"progress": round(progress, 4)}
        if result is not None:
            self._experiment["result"] = result
        with suppress(LogError):  # each report is complete, so a later one replaces it
            self._queue.report(self._experiment)

    def _finish(self, end: dict[str, Any]) -> None:
        self._experiment = cast("Experiment", {**self._experiment, **end, "ended_at": wall_timestamp()})
        deadline = time.monotonic() + _REPORT_SECONDS
        while True:
            try:
                return self._queue.report(self._experiment)
            except LogError as error:
                if time.monotonic() > deadline:
                    return _logger.error("experiment %s cannot be reported: %s", self._experiment["id"], error)
                time.sleep(_REPORT_PAUSE_SECONDS)

    def _listen(self) -> None:
        """Stop the run on request, or when it takes longer than its bound."""
        deadline = time.monotonic() + self._spec.seconds
        while not self._done.is_set():
            try:
                stop = self._queue.wait_for_stop(self._experiment["id"], _STOP_LOOK_SECONDS)
            except LogError:
                stop = None
                self._done.wait(_STOP_LOOK_SECONDS)  # because a refused connection fails at once
            if stop is None and time.monotonic() > deadline:
                stop = Stop("failed", f"it took longer than its bound of {self._spec.seconds:,.0f} s")
            if stop is not None:
                self._run.stop(stop)


def restore(queue: ExperimentQueue, target: Target) -> None:
    """Restore the previous settings. They stay in the queue if this raises ``TargetError`` or ``LogError``."""
    if held := queue.held():
        present = target.settings()
        for name, settings in held.items():
            if name in present:  # a removed replica has no settings to restore
                target.change(name, settings)
        queue.hold({})


def versions(queue: ExperimentQueue) -> dict[str, str]:
    return {
        "lab": version("eventual-consistency-lab"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} processors",
        "log server": queue.server(),
        **{part: version(part) for part in _PARTS},
    }


def measure(spec: Spec, run: Run) -> Result:
    return _MEASURES[type(spec)](spec, run)


def measure_all(spec: Spec, run: Run, once: Callable[[Spec, Run], Result] = measure) -> Result:
    """Run an experiment with ``once``, or every step of a sweep. Raises ``TargetError`` or ``Stopped``."""
    if not isinstance(spec, Sweep):
        return once(spec, run)
    result: Result = {"parameter": spec.parameter, "steps": []}
    for number, (value, step) in enumerate(zip(spec.values, spec.steps, strict=True)):
        run.part(number, len(spec.values), result)
        result["steps"].append({"value": value, "result": once(step, run)})
    return result
