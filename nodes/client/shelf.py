"""The client's own store: every experiment, as JSON in one sqlite file."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from nodes.experiments.spec import ENDED, Experiment
from nodes.problem import Problem
from nodes.store import is_damage, set_aside

KEPT = 200
_SCHEMA = """
CREATE TABLE IF NOT EXISTS experiments (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, ended INTEGER NOT NULL, document TEXT NOT NULL
)
"""
_UPSERT = """
INSERT INTO experiments (id, ended, document) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, document = excluded.document WHERE NOT experiments.ended
"""
_TRIM = """
DELETE FROM experiments
WHERE ended AND number <= (SELECT number FROM experiments WHERE ended ORDER BY number DESC LIMIT 1 OFFSET ?)
"""


class Shelf:
    """Experiments by id: those that have not ended, and the last 200 that have. Thread-safe.

    What has ended stays as it is. Methods raise ``Problem`` 503 where the file cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        """Open the store in ``directory``, made where missing; a damaged one is set aside, or no client would start."""
        self._lock = threading.Lock()
        path = directory / "experiments.sqlite"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            try:
                self._file = _opened(path)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                set_aside(path, str(error))
                self._file = _opened(path)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(error) from error

    def put(self, experiment: Experiment) -> None:
        """Keep an experiment as it is now."""
        row = (experiment["id"], experiment["state"] in ENDED, json.dumps(experiment))
        with self._lock:
            try:
                self._file.execute(_UPSERT, row)
                self._file.execute(_TRIM, (KEPT,))
            except sqlite3.Error as error:
                raise _unusable(error) from error

    def get(self, name: str) -> Experiment | None:
        """An experiment by its id."""
        found = self._rows("SELECT document FROM experiments WHERE id = ?", name)
        return found[0] if found else None

    def all(self) -> list[Experiment]:
        """Every experiment, the newest first."""
        return self._rows("SELECT document FROM experiments ORDER BY number DESC")

    def unended(self) -> list[Experiment]:
        """What waits or runs, the oldest first."""
        return self._rows("SELECT document FROM experiments WHERE NOT ended ORDER BY number")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _rows(self, query: str, *values: Any) -> list[Experiment]:
        with self._lock:
            try:
                with closing(self._file.execute(query, values)) as rows:
                    return [cast("Experiment", json.loads(text)) for (text,) in rows]
            except sqlite3.Error as error:
                raise _unusable(error) from error


def _opened(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute(_SCHEMA)
    except sqlite3.Error:
        file.close()
        raise
    return file


def _unusable(error: Exception) -> Problem:
    return Problem(503, "store-unavailable", "The store is unavailable", f"The experiments' file: {error}.")
