"""The client's own store: every experiment, as JSON in one sqlite file.

Each is there three times: as the list shows it, as it is shown alone, and with every single measurement. So frequent
reads are small, and megabytes are parsed only on request.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from nodes.experiments.spec import ENDED, Experiment
from nodes.runtime.store import StoreError, is_damage, quarantine

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


class ExperimentStore:
    """Experiments by id: those that have not ended, and the last 200 that have. Thread-safe.

    An experiment that has ended does not change. Methods raise ``StoreError`` if the file cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        """Open or create the store in ``directory``; a damaged file is quarantined, so that the client can start."""
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
        """An experiment by its id; ``raw``: with every single measurement."""
        column = "complete" if raw else "document"
        found = self._rows(f"SELECT {column} FROM shelf WHERE id = ?", name)  # noqa: S608 - one of two words
        return found[0] if found else None

    def all(self) -> list[Experiment]:
        """A summary of every experiment, the newest first."""
        return self._rows("SELECT summary FROM shelf ORDER BY number DESC")

    def unended(self) -> list[Experiment]:
        """A summary of what waits or runs, the oldest first."""
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
    """An experiment without its specification and its result, which may be large."""
    return {**experiment, "spec": None, "result": None}


def _without_raw(result: dict[str, Any] | None) -> dict[str, Any] | None:
    """A result without its measurements, also those of each step of a sweep."""
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
