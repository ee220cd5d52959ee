"""A replica's durable store: one sqlite file with the data and the position, changed together."""

import logging
import queue
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from broker.entry import Entry, Record, digest
from broker.position import Position
from broker.snapshot import Snapshot
from nodes.runtime.gate import State
from nodes.runtime.store import StoreError, connect, is_damage, quarantine, take_lock

_logger = logging.getLogger("lab.store")
SCHEMA_VERSION = 1
_READERS = 8
_CHECKPOINT_BYTES = 4 * 2**20  # of write-ahead log; a smaller one is not worth a checkpoint
_RESTART_BYTES = 32 * 2**20  # of write-ahead log; a larger one blocks the writer to restart it
_SCHEMA = """
CREATE TABLE data (
  key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL, write_id TEXT NOT NULL, at_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  epoch INTEGER NOT NULL, version INTEGER NOT NULL, write_id TEXT, at_us INTEGER
);
INSERT INTO state VALUES (1, 0, 0, NULL, NULL);
PRAGMA user_version = 1;
"""
_TABLES = {"data", "state"}
_UPSERT = """
INSERT INTO data (key, value, version, write_id, at_us) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE
SET value = excluded.value, version = excluded.version, write_id = excluded.write_id, at_us = excluded.at_us
"""


class StoreDamaged(StoreError):
    """Raised if the file does not match what this code wrote; reopening it starts the store over."""


class ReplicaStore:
    """Keys, values and their position. Thread-safe; a file lock excludes other processes. Methods raise ``StoreError``.

    WAL with ``synchronous=NORMAL``: a commit survives the death of the process. A power failure can lose the newest
    commits; the log then delivers those entries again, because the position is lost with them.
    """

    def __init__(self, directory: Path) -> None:
        """Open the store in ``directory``, which is created if missing.

        A file that is damaged or of another version is quarantined: the log and the primary's store hold its content.
        """
        self.generation = 0  # counts the snapshots that have replaced everything
        self._path = directory / "store.sqlite"
        self._writing = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        with ExitStack() as opened:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                opened.enter_context(take_lock(directory / "store.lock"))
                if (damage := self._damage()) is not None:
                    quarantine(self._path, damage)
                self._writer = opened.enter_context(closing(connect(self._path)))
                if self._writer.execute("PRAGMA user_version").fetchone()[0] == 0:
                    self._writer.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
                    _logger.info("%s is new, and the store is empty", self._path)
                for _ in range(_READERS):
                    reader = opened.enter_context(closing(connect(self._path)))
                    reader.execute("PRAGMA query_only = 1")
                    self._readers.put(reader)
            except (OSError, sqlite3.Error) as error:
                raise StoreError(f"the store in {directory} cannot be opened: {error}") from error
            self._opened = opened.pop_all()

    def close(self) -> None:
        with self._writing:
            self._opened.close()

    # -- writing ------------------------------------------------------------------------------------------------------
    def apply(self, entries: Sequence[Entry]) -> State:
        """Apply entries in one transaction with their last position; return the new state.

        Nothing is applied if they do not follow the position.
        """
        with self._transaction() as db:
            before = _state(db)
            if not before.position.is_followed_by_all(entry.position for entry in entries):
                first, last = entries[0].position, entries[-1].position
                raise StoreError(f"{first} to {last} does not follow {before.position} without a gap")
            changed, deleted = _clear_and_net(db, entries)
            db.executemany("DELETE FROM data WHERE key = ?", [(key,) for key, _ in deleted])
            db.executemany(_UPSERT, changed)
            newest = entries[-1]
            return _move(db, State(newest.position, newest.write_id, newest.at_us))

    def merge(self, entries: Sequence[Entry], before: State, after: State, generation: int) -> None:
        """Apply entries in any order, in one transaction with the new state: the newest version of each key wins.

        Nothing is applied if the store is no longer at ``before``, or a snapshot has replaced it since ``generation``.
        """
        with self._transaction() as db:
            if generation != self.generation or _state(db) != before:
                raise StoreError("a snapshot replaced the store in the meantime")
            changed, deleted = _clear_and_net(db, sorted(entries))
            db.executemany("DELETE FROM data WHERE key = ? AND version < ?", deleted)
            db.executemany(f"{_UPSERT} WHERE excluded.version > data.version", changed)
            _move(db, after)

    def install(self, snapshot: Snapshot) -> State:
        with self._transaction() as db:
            self.generation += 1
            db.execute("DELETE FROM data")
            db.executemany(_UPSERT, snapshot.records)
            return _move(db, State(snapshot.position, snapshot.write_id, snapshot.at_us))

    def continue_at(self, position: Position) -> State:
        """Move to the start of an epoch that keeps the content."""
        with self._transaction() as db:
            return _move(db, _state(db)._replace(position=position))

    def corrupt(self, key: str | None) -> bool:
        """Change the value of this key, or of any key, but not its version; return whether it exists."""
        with self._transaction() as db:
            row = db.execute("SELECT key, value FROM data WHERE ?1 IS NULL OR key = ?1 LIMIT 1", (key,)).fetchone()
            if row is not None:
                other = '"corrupt"' if row[1] != '"corrupt"' else '"corrupt again"'
                db.execute("UPDATE data SET value = ? WHERE key = ?", (other, row[0]))
        return row is not None

    def checkpoint(self) -> None:
        """Move a large write-ahead log into the file, concurrently with the writer."""
        size = self._path.with_name("store.sqlite-wal").stat().st_size
        if size < _CHECKPOINT_BYTES:
            return
        with self._reader() as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if size >= _RESTART_BYTES:  # a writer that never pauses never lets the log restart
                db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    # -- reading ------------------------------------------------------------------------------------------------------
    def state(self) -> State:
        with self._cut() as db:
            return _state(db)

    def get(self, key: str) -> tuple[State, Record | None]:
        """The state, and the record of a key at it; ``None`` if missing."""
        with self._cut() as db:
            row = db.execute("SELECT key, value, version, write_id, at_us FROM data WHERE key = ?", (key,)).fetchone()
            return _state(db), None if row is None else Record(*row)

    def page(self, after: str, limit: int, max_bytes: int) -> tuple[State, list[Record], bool]:
        """Records with keys greater than ``after``, and whether there are more: at most ``limit`` or ``max_bytes``."""
        query = "SELECT key, value, version, write_id, at_us FROM data WHERE key > ? ORDER BY key"
        # Closed before the cut ends: an open statement keeps its connection in the past, even after the COMMIT.
        with self._cut() as db, closing(db.execute(query, (after,))) as rows:
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
        with self._cut() as db:
            keys, found = digest(db.execute("SELECT write_id, key, value FROM data"))
            return _state(db), keys, found

    # -- connections --------------------------------------------------------------------------------------------------
    def _damage(self) -> str | None:
        """What is wrong with the file; ``None`` if it is intact or missing."""
        try:
            with closing(connect(self._path)) as db:
                found = db.execute("PRAGMA user_version").fetchone()[0]
                if found not in {0, SCHEMA_VERSION}:
                    return f"it has schema version {found}, but this code reads {SCHEMA_VERSION}"
                tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if tables != (_TABLES if found else set()):
                    return f"it has the wrong tables: {', '.join(sorted(tables)) or 'none'}"
                (checked,) = db.execute("PRAGMA quick_check(1)").fetchone()
                return None if checked == "ok" else str(checked)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return str(error)
            raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing, _translated("written"), self._writer as db:  # commits, or rolls back after an error
            db.execute("BEGIN IMMEDIATE")
            yield db

    @contextmanager
    def _cut(self) -> Iterator[sqlite3.Connection]:
        with self._reader() as db, db:
            db.execute("BEGIN")
            yield db

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        db = self._readers.get()
        try:
            with _translated("read"):
                yield db
        finally:
            self._readers.put(db)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        kind = StoreDamaged if is_damage(error) else StoreError
        raise kind(f"the store cannot be {what}: {error}") from error


def _clear_and_net(
    db: sqlite3.Connection, entries: Sequence[Entry]
) -> tuple[list[tuple[str, str, int, str, int]], list[tuple[str, int]]]:
    """Clear the data if an epoch starts; return the rows to set and the keys to delete, with versions."""
    last: dict[str, Entry] = {}
    for entry in entries:
        if entry.op == "epoch":
            db.execute("DELETE FROM data")
            last.clear()
        else:
            last[entry.key] = entry
    changed = [(e.key, e.value, e.position.version, e.write_id, e.at_us) for e in last.values() if e.op == "set"]
    return changed, [(entry.key, entry.position.version) for entry in last.values() if entry.op == "delete"]


def _state(db: sqlite3.Connection) -> State:
    epoch, version, write_id, at_us = db.execute("SELECT epoch, version, write_id, at_us FROM state").fetchone()
    return State(Position(epoch, version), write_id, at_us)


def _move(db: sqlite3.Connection, after: State) -> State:
    changes = (*after.position, after.write_id, after.at_us)
    db.execute("UPDATE state SET epoch = ?, version = ?, write_id = ?, at_us = ?", changes)
    return after
