"""Experiments as the client offers them: submitted, shown, cancelled, and kept when they have ended."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from broker.errors import LogError
from nodes.client.shelf import Shelf, summary
from nodes.experiments.queue import ExperimentQueue, Stop
from nodes.experiments.spec import ENDED, Experiment, ExperimentBody
from nodes.http.api import Api, Query
from nodes.http.openapi import Answer
from nodes.http.problem import Problem
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
    """Those that wait and run, and the last 200 that have ended.

    What the worker reports goes into the client's own store within a second, whether anybody asks for it or not.
    Methods raise ``Problem`` and ``broker.errors.LogError``.
    """

    def __init__(self, queue: ExperimentQueue, shelf: Shelf) -> None:
        self._queue = queue
        self._shelf = shelf
        self._lock = threading.Lock()  # between its place on the shelf and its job an experiment would look lost
        self._collector = Background("experiments", self._step)

    def start(self) -> None:
        """Start keeping what the worker reports."""
        self._collector.start()

    def stop(self) -> None:
        """End that."""
        self._collector.stop()

    def submit(self, body: ExperimentBody) -> Experiment:
        """Put an experiment at the end of the queue. Raises ``Problem`` 429 while it is full."""
        with self._lock:
            return self._submit(body)

    def _submit(self, body: ExperimentBody) -> Experiment:
        if len(self._shelf.unended()) >= WAITING_MAX:
            detail = f"{WAITING_MAX} experiments wait or run already; cancel one, or come again when one has ended."
            full = Problem(429, "queue-full", "Queue full", detail)
            full.headers["Retry-After"] = "10"
            raise full
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
        self._shelf.put(experiment)
        try:
            self._queue.submit(experiment)
        except Exception as error:
            self._end(experiment, "failed", f"it could not be queued: {error}")
            raise
        return experiment

    def all(self) -> ExperimentsAnswer:
        """Every experiment, the newest first."""
        self._refresh()
        return {"experiments": self._shelf.all()}

    def get(self, name: str, *, raw: bool) -> Experiment:
        """One experiment. Raises ``Problem`` 404."""
        self._refresh()
        return self._require(name, raw=raw)

    def cancel(self, name: str) -> Experiment:
        """End an experiment early. Raises ``Problem`` 404, or 409 where it has ended."""
        self._collect()
        with self._lock:
            found = self._require(name)
            if found["state"] in ENDED:
                detail = f"The experiment has ended already: it is {found['state']}."
                raise Problem(409, "experiment-ended", "Experiment ended", detail, state=found["state"])
            if self._queue.withdraw(name):
                return self._end(found, _CANCELLED.state, _CANCELLED.reason)
            self._queue.stop(name, _CANCELLED)
            return found

    def _require(self, name: str, *, raw: bool = False) -> Experiment:
        found = self._shelf.get(name, raw=raw)
        if found is None:
            raise Problem(404, "no-such-experiment", "No such experiment", f"There is no experiment {name[:100]!r}.")
        return found

    def _refresh(self) -> None:
        """Look for news, and do without while the log server is away: what is on the shelf can be read all the same."""
        with suppress(LogError):
            self._collect()

    def _step(self) -> None:
        self._collect()
        self._collector.pause(_COLLECT_SECONDS)

    def _collect(self) -> None:
        """Keep what the worker has reported since."""
        with self._lock:
            for known in self._shelf.unended():
                lost = self._queue.is_lost(known["id"])  # before the report, which the worker writes before RQ forgets
                reported = self._queue.reported(known["id"])
                if reported is not None and summary(reported) != known:
                    self._shelf.put(reported)
                if reported is not None and reported["state"] in ENDED:
                    self._queue.forget(known["id"])
                elif lost:
                    self._end(reported or self._require(known["id"]), "failed", _LOST)
                    self._queue.forget(known["id"])

    def _end(self, experiment: Experiment, state: Any, reason: str) -> Experiment:
        ended: Experiment = {**experiment, "state": state, "reason": reason, "ended_at": wall_timestamp()}
        self._shelf.put(ended)
        return ended


def add_experiments(api: Api, experiments: Experiments) -> None:
    """Add the endpoints."""

    @api.route("POST", "/experiments", admin=True, body=ExperimentBody, answer=Answer(Experiment, 202))
    def submit(body: ExperimentBody) -> Any:
        """Queue an experiment: windows, staleness, levels, or a sweep of one of them."""
        found = experiments.submit(body)
        response = api.reply(found, 202)
        response.headers["Location"] = f"/experiments/{found['id']}"
        return response

    @api.route("GET", "/experiments", admin=False, answer=ExperimentsAnswer)
    def every() -> ExperimentsAnswer:
        """Every experiment, the newest first, without their specifications and results."""
        return experiments.all()

    @api.route("GET", "/experiments/<key:name>", admin=False, query=RawQuery, answer=Experiment)
    def one(name: str, query: RawQuery) -> Experiment:
        """One experiment: its state, its progress, and its result as far as there is one."""
        return experiments.get(name, raw=query.raw)

    @api.route("DELETE", "/experiments/<key:name>", admin=True, answer=Experiment)
    def cancel(name: str) -> Experiment:
        """Cancel an experiment. One that runs ends within a second, and its settings are put back."""
        return experiments.cancel(name)
