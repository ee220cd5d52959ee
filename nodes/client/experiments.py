"""Experiments at the client: submitted, shown, canceled, and stored when they have ended."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from broker.errors import LogError
from nodes.client.errors import ExperimentEnded, NoSuchExperiment, QueueFull
from nodes.client.store import ExperimentStore, summary
from nodes.experiments.queue import ExperimentQueue, Stop
from nodes.experiments.spec import ENDED, Experiment, ExperimentBody
from nodes.http.api import Query
from nodes.http.times import wall_timestamp
from nodes.runtime.background import Background

WAITING_MAX = 20
_COLLECT_SECONDS = 1.0
_CANCELLED = Stop("cancelled", "it was cancelled")
_LOST = "it was lost: the log server or the worker ended before anything of it was reported"


class RawQuery(Query):
    """Whether the answer has every single measurement too."""

    raw: Annotated[bool, Field(description="with every single measurement, which may be megabytes")] = False


class ExperimentsAnswer(TypedDict):
    """The experiments, the newest first; ``spec`` and ``result`` are ``null``."""

    experiments: list[Experiment]


class Experiments:
    """Experiments that wait and run, and the last 200 that have ended.

    What the worker reports is stored within a second, whether a client asks for it or not. Methods raise
    ``NoSuchExperiment``, ``ExperimentEnded``, ``StoreError`` and ``LogError``.
    """

    def __init__(self, queue: ExperimentQueue, store: ExperimentStore) -> None:
        self._queue = queue
        self._store = store
        self._lock = threading.Lock()  # an experiment that is stored and not queued yet would look lost
        self._collector = Background("experiments", self._step)
        self.start = self._collector.start
        self.stop = self._collector.stop

    def submit(self, body: ExperimentBody) -> Experiment:
        """Add an experiment to the end of the queue. Raises ``QueueFull``."""
        experiment: Experiment = {
            "id": uuid.uuid4().hex[:12],
            "kind": body.root.kind,
            "state": "queued",
            "progress": 0.0,
            "reason": None,
            "submitted_at": wall_timestamp(),
            "started_at": None,
            "ended_at": None,
            "spec": body.root.model_dump(exclude_none=True),
            "result": None,
        }
        with self._lock:
            if len(self._store.unended()) >= WAITING_MAX:
                detail = f"{WAITING_MAX} experiments wait or run already; cancel one, or retry when one has ended"
                raise QueueFull(detail)
            self._store.put(experiment)
            try:
                self._queue.submit(experiment)
            except Exception as error:
                self._end(experiment, "failed", f"it could not be queued: {error}")
                raise
        return experiment

    def all(self) -> ExperimentsAnswer:
        """Every experiment, the newest first, without their specifications and results."""
        self._refresh()
        return {"experiments": self._store.all()}

    def get(self, name: str, query: RawQuery) -> Experiment:
        """One experiment: its state, its progress, and its result so far."""
        self._refresh()
        return self._require(name, raw=query.raw)

    def cancel(self, name: str) -> Experiment:
        """Cancel an experiment. One that runs ends within a second, and its settings are restored."""
        self._collect()
        with self._lock:
            found = self._require(name)
            if found["state"] in ENDED:
                detail = f"The experiment has ended already: it is {found['state']}"
                raise ExperimentEnded(detail, state=found["state"])
            if self._queue.withdraw(name):
                return self._end(found, _CANCELLED.state, _CANCELLED.reason)
            self._queue.stop(name, _CANCELLED)
            return found

    def _require(self, name: str, *, raw: bool = False) -> Experiment:
        found = self._store.get(name, raw=raw)
        if found is None:
            raise NoSuchExperiment(f"No experiment {name[:100]!r}")
        return found

    def _refresh(self) -> None:
        """Collect, unless the log server is away: the stored experiments can be read all the same."""
        with suppress(LogError):
            self._collect()

    def _step(self) -> None:
        self._collect()
        self._collector.pause(_COLLECT_SECONDS)

    def _collect(self) -> None:
        """Store what the worker has reported since."""
        with self._lock:
            for known in self._store.unended():
                lost = self._queue.is_lost(known["id"])  # before the report, which the worker writes before RQ forgets
                reported = self._queue.reported(known["id"])
                if reported is not None and summary(reported) != known:
                    self._store.put(reported)
                if reported is not None and reported["state"] in ENDED:
                    self._queue.forget(known["id"])
                elif lost:
                    self._end(reported or self._require(known["id"]), "failed", _LOST)
                    self._queue.forget(known["id"])

    def _end(self, experiment: Experiment, state: Any, reason: str) -> Experiment:
        ended: Experiment = {**experiment, "state": state, "reason": reason, "ended_at": wall_timestamp()}
        self._store.put(ended)
        return ended
