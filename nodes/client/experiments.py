"""Experiments at the client: submitted, shown, canceled, and stored in the client's own file."""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field
from typing_extensions import TypedDict

from broker.errors import LogError
from nodes.client.errors import ExperimentEnded, ExperimentRunning, NoSuchExperiment, QueueFull, SceneRunning
from nodes.experiments.queue import ExperimentQueue, Stop
from nodes.experiments.spec import ENDED, Experiment, ExperimentBody
from nodes.http.api import Query
from nodes.http.times import wall_timestamp
from nodes.runtime.background import Background
from nodes.runtime.store import StoreError, is_damage, quarantine

WAITING_MAX = 20
_COLLECT_SECONDS = 1.0
_CANCELLED = Stop("cancelled", "it was canceled")
_LOST = "it was lost: the log server or the worker stopped before its first report"
KEPT = 200  # experiments that have ended
_SCHEMA = """
CREATE TABLE IF NOT EXISTS shelf (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, ended INTEGER NOT NULL,
  summary TEXT NOT NULL, document TEXT NOT NULL, complete TEXT NOT NULL
)
"""
_FORMER = "SELECT name FROM sqlite_master WHERE name = 'experiments'"
_CONVERT = """
BEGIN;
INSERT INTO shelf (id, ended, summary, document, complete)
SELECT id, ended, json_set(document, '$.spec', NULL, '$.result', NULL), json_remove(document, '$.result.raw'), document
FROM experiments ORDER BY number;
DROP TABLE experiments;
COMMIT;
"""
_UPSERT = """
INSERT INTO shelf (id, ended, summary, document, complete) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET ended = excluded.ended, summary = excluded.summary, document = excluded.document, complete = excluded.complete
WHERE NOT shelf.ended
"""
_TRIM = """
DELETE FROM shelf
WHERE ended AND number <= (SELECT number FROM shelf WHERE ended ORDER BY number DESC LIMIT 1 OFFSET ?)
"""


class RawQuery(Query):
    raw: Annotated[bool, Field(description="include every measurement, possibly megabytes")] = False


class ExperimentsAnswer(TypedDict):
    experiments: list[Experiment]


@dataclass
class Experiments:
    """Stores the worker's reports within a second, whether or not a client requests them.

    Methods raise ``ClientError``, ``StoreError`` and ``LogError``.
    """

    queue: ExperimentQueue
    store: ExperimentStore

    def __post_init__(self) -> None:
        self._lock = threading.Lock()  # an experiment that is stored but not queued yet would look lost
        self._collector = Background("experiments", self._step)
        self.start = self._collector.start
        self.stop = self._collector.stop

    def submit(self, body: ExperimentBody) -> Experiment:
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
            if len(self.store.unended()) >= WAITING_MAX:
                detail = f"{WAITING_MAX} experiments are waiting or running; cancel one, or retry later"
                raise QueueFull(detail)
            self._require_no_scene()
            self.store.put(experiment)
            try:
                self.queue.submit(experiment)
            except Exception as error:
                self._end(experiment, "failed", f"it could not be queued: {error}")
                raise
        return experiment

    def all(self) -> ExperimentsAnswer:
        """Every experiment, the newest first, without their specifications and results."""
        self._refresh()
        return {"experiments": self.store.all()}

    def get(self, name: str, query: RawQuery) -> Experiment:
        """One experiment: its state, its progress, and its result so far."""
        self._refresh()
        return self._require(name, raw=query.raw)

    def cancel(self, name: str) -> Experiment:
        """Cancel an experiment. A running one ends within a second, and its settings are restored."""
        self._collect()
        with self._lock:
            found = self._require(name)
            if found["state"] in ENDED:
                raise ExperimentEnded(f"The experiment has already ended: it is {found['state']}", state=found["state"])
            if self.queue.withdraw(name):
                return self._end(found, _CANCELLED.state, _CANCELLED.reason)
            self.queue.stop(name, _CANCELLED)
            return found

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Let no experiment be submitted during the block. Raises ``ExperimentRunning`` if one has not ended."""
        self._collect()
        with self._lock:
            for found in self.store.unended():
                raise ExperimentRunning(f"Experiment {found['id']} is {found['state']}; cancel it, or retry later")
            yield

    def _require_no_scene(self) -> None:
        with suppress(LogError):  # then it cannot be queued either
            if scene := self.queue.held("scene"):
                raise SceneRunning(f"Scene {scene['name']!r} is running; retry when it has ended")

    def _require(self, name: str, *, raw: bool = False) -> Experiment:
        if (found := self.store.get(name, raw=raw)) is None:
            raise NoSuchExperiment(f"No experiment {name[:100]!r}")
        return found

    def _refresh(self) -> None:
        """Collect reports unless the log server is away; stored experiments stay readable."""
        with suppress(LogError):
            self._collect()

    def _step(self) -> None:
        self._collect()
        self._collector.pause(_COLLECT_SECONDS)

    def _collect(self) -> None:
        with self._lock:
            for known in self.store.unended():
                lost = self.queue.is_lost(known["id"])  # before the report, which the worker writes before RQ forgets
                reported = self.queue.reported(known["id"])
                if reported is not None and summary(reported) != known:
                    self.store.put(reported)
                if reported is not None and reported["state"] in ENDED:
                    self.queue.forget(known["id"])
                elif lost:
                    self._end(reported or self._require(known["id"]), "failed", _LOST)
                    self.queue.forget(known["id"])

    def _end(self, experiment: Experiment, state: Any, reason: str) -> Experiment:
        ended: Experiment = {**experiment, "state": state, "reason": reason, "ended_at": wall_timestamp()}
        self.store.put(ended)
        return ended


class ExperimentStore:
    """Experiments as JSON in one sqlite file: unfinished ones, and the last 200 that have ended. Thread-safe.

    Each is stored three times: for the list, for its own page, and with every measurement. So frequent reads are
    small, and megabytes are parsed only on request. An experiment that has ended does not change. A damaged file is
    quarantined so that the client can start. Methods raise ``StoreError`` if the file cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        path = directory / "experiments.sqlite"
        with self._usable():
            directory.mkdir(parents=True, exist_ok=True)
            try:
                self._file = _opened(path)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                quarantine(path, str(error))
                self._file = _opened(path)

    def put(self, experiment: Experiment) -> None:
        document = {**experiment, "result": _without_raw(experiment["result"])}
        texts = [json.dumps(found) for found in (summary(experiment), document, experiment)]
        with self._usable():
            self._file.execute(_UPSERT, (experiment["id"], experiment["state"] in ENDED, *texts))
            self._file.execute(_TRIM, (KEPT,))

    def get(self, name: str, *, raw: bool = False) -> Experiment | None:
        column = "complete" if raw else "document"
        found = self._rows(f"SELECT {column} FROM shelf WHERE id = ?", name)  # noqa: S608 - one of two words
        return found[0] if found else None

    def all(self) -> list[Experiment]:
        return self._rows("SELECT summary FROM shelf ORDER BY number DESC")

    def unended(self) -> list[Experiment]:
        return self._rows("SELECT summary FROM shelf WHERE NOT ended ORDER BY number")

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _rows(self, query: str, *values: Any) -> list[Experiment]:
        with self._usable(), closing(self._file.execute(query, values)) as rows:
            return [cast("Experiment", json.loads(text)) for (text,) in rows]

    @contextmanager
    def _usable(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (OSError, sqlite3.Error) as error:
                raise StoreError(f"The experiments' file: {error}") from error


def summary(experiment: Experiment) -> Experiment:
    """An experiment without its specification and its result, which can be large."""
    return {**experiment, "spec": None, "result": None}


def _without_raw(result: dict[str, Any] | None) -> dict[str, Any] | None:
    """A result without its measurements, including those of each step of a sweep."""
    if result is None:
        return None
    found = {name: value for name, value in result.items() if name != "raw"}
    if "steps" in found:
        found["steps"] = [{**step, "result": _without_raw(step["result"])} for step in found["steps"]]
    return found


def _opened(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute(_SCHEMA)
        if file.execute(_FORMER).fetchall():
            file.executescript(_CONVERT)
    except sqlite3.Error:
        file.close()
        raise
    return file
