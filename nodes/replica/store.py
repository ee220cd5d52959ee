"""A replica's durable store: one sqlite file with the data and the position, changed together."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

from broker.entry import Entry, Record, digest
from broker.position import Position
from broker.snapshot import Snapshot
from nodes.runtime.gate import State
from nodes.runtime.store import Database, StoreError

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE data (
  key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL, write_id TEXT NOT NULL, at_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  epoch INTEGER NOT NULL, version INTEGER NOT NULL, write_id TEXT, at_us INTEGER, newest INTEGER NOT NULL
);
INSERT INTO state VALUES (1, 0, 0, NULL, NULL, 0);
"""
_SET = """
INSERT INTO data (key, value, version, write_id, at_us) VALUES {rows}
ON CONFLICT (key) DO UPDATE
SET value = excluded.value, version = excluded.version, write_id = excluded.write_id, at_us = excluded.at_us
WHERE excluded.version > data.version
"""
_DELETE = """
WITH gone (key, version) AS (VALUES {rows})
DELETE FROM data
WHERE key IN (SELECT data.key FROM gone CROSS JOIN data ON data.key = gone.key WHERE data.version < gone.version)
"""
_ROWS_MAX = 256  # in one statement


class ReplicaStore:
    """Keys, values and their position. Thread-safe. Methods raise ``StoreError``.

    After a power failure the log delivers the lost entries again, because the position is lost with them. A damaged
    file is quarantined when it is opened: the log and the primary's store hold its content.
    """

    def __init__(self, directory: Path) -> None:
        self.generation = 0  # counts the snapshots that have replaced everything
        self._db = Database(directory, _SCHEMA, SCHEMA_VERSION, {"data", "state"})
        self.close, self.checkpoint = self._db.close, self._db.checkpoint

    # -- writing ------------------------------------------------------------------------------------------------------
    def apply(self, entries: Sequence[Entry]) -> State:
        """Apply entries in one transaction with their last position; return the new state.

        Nothing is applied if they do not follow the position.
        """
        with self._db.transaction() as db:
            before = _state(db)
            if not before.position.is_followed_by_all(entry.position for entry in entries):
                first, last = entries[0].position, entries[-1].position
                raise StoreError(f"{first} to {last} does not follow {before.position} without a gap")
            _change(db, entries)
            return _move(db, before.after(entries[-1]))

    def merge(self, entries: Sequence[Entry], before: State, after: State, generation: int) -> None:
        """Apply entries in any order, in one transaction with the new state: the newest version of each key wins.

        Nothing is applied if the store is no longer at ``before``, or a snapshot has replaced it since ``generation``.
        """
        with self._db.transaction() as db:
            if generation != self.generation or _state(db) != before:
                raise StoreError("a snapshot replaced the store in the meantime")
            _change(db, sorted(entries))
            _move(db, after)

    def install(self, snapshot: Snapshot) -> State:
        with self._db.transaction(lambda: setattr(self, "generation", self.generation + 1)) as db:
            db.execute("DELETE FROM data")
            _execute(db, _SET, snapshot.records)
            return _move(db, State(snapshot.position, snapshot.write_id, snapshot.at_us))

    def continue_at(self, position: Position) -> State:
        """Move to the start of an epoch that keeps the content."""
        with self._db.transaction() as db:
            return _move(db, _state(db)._replace(position=position, beyond=0))

    def corrupt(self, key: str | None) -> bool:
        """Change the value of this key, or of any key, but not its version; return whether it exists."""
        with self._db.transaction() as db:
            row = db.execute("SELECT key, value FROM data WHERE ?1 IS NULL OR key = ?1 LIMIT 1", (key,)).fetchone()
            if row is not None:
                other = '"corrupt"' if row[1] != '"corrupt"' else '"corrupt again"'
                db.execute("UPDATE data SET value = ? WHERE key = ?", (other, row[0]))
        return row is not None

    # -- reading ------------------------------------------------------------------------------------------------------
    def state(self) -> State:
        with self._db.cut() as db:
            return _state(db)

    def get(self, key: str) -> tuple[State, Record | None]:
        """The state, and the record of a key at it; ``None`` if missing."""
        with self._db.cut() as db:
            row = db.execute("SELECT key, value, version, write_id, at_us FROM data WHERE key = ?", (key,)).fetchone()
            return _state(db), None if row is None else Record(*row)

    def page(self, after: str, limit: int, max_bytes: int) -> tuple[State, list[Record], bool]:
        """Records with keys greater than ``after``, and whether there are more: at most ``limit`` or ``max_bytes``."""
        query = "SELECT key, value, version, write_id, at_us FROM data WHERE key > ? ORDER BY key"
        # Closed before the cut ends: an open statement keeps its connection in the past, even after the COMMIT.
        with self._db.cut() as db, closing(db.execute(query, (after,))) as rows:
            records: list[Record] = []
            size_bytes = 0
            for row in rows:
                if len(records) == limit or size_bytes >= max_bytes:
                    return _state(db), records, True
                records.append(Record(*row))
                size_bytes += len(row[1])
            return _state(db), records, False

    def digest(self) -> tuple[State, int, str]:
        """Number of keys and digest, computed from the content itself."""
        with self._db.cut() as db:
            keys, found = digest(db.execute("SELECT write_id, key, value FROM data"))
            return _state(db), keys, found


def _change(db: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Apply entries in log order to the data, of which nothing newer is overwritten."""
    last: dict[str, Entry] = {}
    for entry in entries:
        if entry.op == "epoch":
            db.execute("DELETE FROM data")
            last.clear()
        else:
            last[entry.key] = entry
    _execute(db, _DELETE, [(key, found.position.version) for key, found in last.items() if found.op == "delete"])
    changed = [(e.key, e.value, e.position.version, e.write_id, e.at_us) for e in last.values() if e.op == "set"]
    _execute(db, _SET, changed)


def _execute(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Execute a statement for all rows, many at once: each execution waits for the interpreter's lock, up to 5 ms while
    other threads compute. The numbers of rows are powers of two, so that few different statements are compiled.
    """
    done = 0
    while done < len(rows):
        count = min(_ROWS_MAX, 1 << (len(rows) - done).bit_length() - 1)
        some = rows[done : done + count]
        marks = ", ".join(["(" + ", ".join("?" * len(some[0])) + ")"] * count)
        db.execute(statement.format(rows=marks), list(chain.from_iterable(some)))
        done += count


def _state(db: sqlite3.Connection) -> State:
    row = db.execute("SELECT epoch, version, write_id, at_us, newest FROM state").fetchone()
    epoch, version, write_id, at_us, newest = row
    return State(Position(epoch, version), write_id, at_us, newest if newest > version else 0)


def _move(db: sqlite3.Connection, after: State) -> State:
    changes = (*after.position, after.write_id, after.at_us, after.newest.version)
    db.execute("UPDATE state SET epoch = ?, version = ?, write_id = ?, at_us = ?, newest = ?", changes)
    return after
