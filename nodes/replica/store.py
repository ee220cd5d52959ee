"""A replica's own durable store: one sqlite file with the data and the position, changed together."""

from __future__ import annotations

import fcntl
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from broker import digest as content
from broker.entry import Entry, Record
from broker.position import START, Position
from broker.snapshot import Snapshot
from nodes.runtime.gate import State
from nodes.runtime.store import StoreError, is_damage, quarantine

_logger = logging.getLogger("lab.store")
SCHEMA_VERSION = 1
_READERS = 8
_LOCK_WAIT_SECONDS = 10.0
_CHECKPOINT_BYTES = 4 * 2**20
_RESTART_BYTES = 32 * 2**20
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
    """Raised when the file is not what this code has written; opened again, the store begins anew."""


class StorePage(NamedTuple):
    """Some records in key order, at one position; ``more`` when there are keys after the last one."""

    state: State
    records: list[Record]
    more: bool


class ReplicaStore:
    """Keys, values and the position they are at. Thread-safe; one process at a time, by a lock on the file.

    WAL with ``synchronous=NORMAL``: a commit survives the death of the process. A loss of power may take the newest
    commits with it, and then the log gives them again, because the position goes back with them.
    """

    def __init__(self, directory: Path) -> None:
        """Open the store in ``directory``, made where missing. Raises ``StoreError``.

        A file that is damaged, or of another version, is set aside: the log and the primary's store have everything
        that it had.
        """
        self.generation = 0  # counts the snapshots that have replaced everything
        self._path = directory / "store.sqlite"
        self._writing = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        with ExitStack() as opened:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                opened.enter_context(_take_lock(directory / "store.lock"))
                if (damage := self._damage()) is not None:
                    quarantine(self._path, damage)
                self._writer = opened.enter_context(closing(self._connect()))
                self._prepare()
                for _ in range(_READERS):
                    reader = opened.enter_context(closing(self._connect()))
                    reader.execute("PRAGMA query_only = 1")
                    self._readers.put(reader)
            except (OSError, sqlite3.Error) as error:
                raise StoreError(f"the store in {directory} cannot be opened: {error}") from error
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the file and release the lock."""
        with self._writing:
            self._opened.close()

    # -- writing ------------------------------------------------------------------------------------------------------

    def apply(self, entries: Sequence[Entry]) -> State:
        """Apply entries that follow the position, in one transaction with the new position, and return that.

        Raises ``StoreError`` when they do not follow it, or the file cannot be written: then nothing is applied.
        """
        with self._transaction() as db:
            before = _state(db)
            if not before.position.is_followed_by_all(entry.position for entry in entries):
                raise StoreError(
                    f"{entries[0].position} to {entries[-1].position} does not follow {before.position} without a gap"
                )
            cleared, changed, deleted = _net_effect(entries)
            if cleared:
                db.execute("DELETE FROM data")
            db.executemany("DELETE FROM data WHERE key = ?", [(key,) for key, _ in deleted])
            db.executemany(_UPSERT, changed)
            last = entries[-1]
            after = State(last.position, last.write_id, last.at_us)
            _move(db, before.position, after)
        return after

    def merge(self, entries: Sequence[Entry], before: State, after: State, generation: int) -> None:
        """Apply entries in any order: the newest version of each key wins. In one transaction the position moves.

        Raises ``StoreError`` when the file cannot be written, or the store is not the one at ``before`` any more, but
        was replaced by a snapshot since ``generation`` was read: then nothing is applied.
        """
        with self._transaction() as db:
            if generation != self.generation or _state(db) != before:
                raise StoreError("the store was replaced by a snapshot meanwhile")
            cleared, changed, deleted = _net_effect(sorted(entries))
            if cleared:
                db.execute("DELETE FROM data")
            db.executemany("DELETE FROM data WHERE key = ? AND version < ?", deleted)
            db.executemany(f"{_UPSERT} WHERE excluded.version > data.version", changed)
            _move(db, before.position, after)

    def install(self, snapshot: Snapshot) -> State:
        """Replace everything by a snapshot. Raises ``StoreError``."""
        with self._transaction() as db:
            self.generation += 1
            before = _state(db)
            db.execute("DELETE FROM data")
            db.executemany(_UPSERT, snapshot.records)
            after = State(snapshot.position, snapshot.write_id, snapshot.at_us)
            _move(db, before.position, after)
        return after

    def go_on(self, position: Position) -> State:
        """Be at the beginning of an epoch that keeps the content; return the state. Raises ``StoreError``."""
        with self._transaction() as db:
            before = _state(db)
            after = before._replace(position=position)
            _move(db, before.position, after)
        return after

    def corrupt(self, key: str | None) -> bool:
        """Change a value behind everybody's back: of this key, or of any; ``False`` where there is none."""
        with self._transaction() as db:
            row = db.execute("SELECT key, value FROM data WHERE ?1 IS NULL OR key = ?1 LIMIT 1", (key,)).fetchone()
            if row is not None:
                db.execute("UPDATE data SET value = ? WHERE key = ?", (_other_than(row[1]), row[0]))
        return row is not None

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file where it has grown, beside the writer. Raises ``StoreError``."""
        size = self._path.with_name("store.sqlite-wal").stat().st_size
        if size < _CHECKPOINT_BYTES:
            return
        with self._reader() as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if size >= _RESTART_BYTES:  # the writer never paused, so the log never started over: make it
                db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    # -- reading ------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The position, and the write that brought it there."""
        with self._cut() as db:
            return _state(db)

    def get(self, key: str) -> tuple[State, Record | None]:
        """A key's record, or ``None`` where it is missing, and the state in which that is so."""
        with self._cut() as db:
            row = db.execute("SELECT key, value, version, write_id, at_us FROM data WHERE key = ?", (key,)).fetchone()
            return _state(db), None if row is None else Record(*row)

    def page(self, after: str, limit: int, max_bytes: int) -> StorePage:
        """Records with keys greater than ``after``: at most ``limit``, and ending once they weigh ``max_bytes``."""
        query = "SELECT key, value, version, write_id, at_us FROM data WHERE key > ? ORDER BY key"
        # Closed before the cut ends: an open statement keeps its connection in the past, also after the COMMIT.
        with self._cut() as db, closing(db.execute(query, (after,))) as rows:
            records: list[Record] = []
            size_bytes = 0
            for row in rows:
                if len(records) == limit or size_bytes >= max_bytes:
                    return StorePage(_state(db), records, more=True)
                records.append(Record(*row))
                size_bytes += len(row[1])
            return StorePage(_state(db), records, more=False)

    def digest(self) -> tuple[State, int, str]:
        """State, number of keys and digest, computed from the content itself."""
        with self._cut() as db:
            keys, digest = content.digest(db.execute("SELECT write_id, key, value FROM data"))
            return _state(db), keys, digest

    # -- connections --------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
            db.execute("PRAGMA synchronous = NORMAL")
            # A checkpoint syncs to disk, which the applier must not wait for: see checkpoint().
            db.execute("PRAGMA wal_autocheckpoint = 0")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _prepare(self) -> None:
        if self._writer.execute("PRAGMA user_version").fetchone()[0] == 0:
            self._writer.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            _logger.info("%s is new, and the store is empty", self._path)

    def _damage(self) -> str | None:
        """What is wrong with the file, as a sentence; ``None`` for one that is well, or not there."""
        if not self._path.exists():
            return None
        try:
            with closing(self._connect()) as db:
                found = db.execute("PRAGMA user_version").fetchone()[0]
                if found not in {0, SCHEMA_VERSION}:
                    return f"it has schema version {found}, and this code reads {SCHEMA_VERSION}"
                tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if tables != (_TABLES if found else set()):
                    return f"it has the tables {', '.join(sorted(tables)) or 'of nothing'}"
                (checked,) = db.execute("PRAGMA quick_check(1)").fetchone()
                return None if checked == "ok" else str(checked)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return str(error)
            raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise _failure("written", error) from error
                raise

    @contextmanager
    def _cut(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: everything in it is of one moment."""
        with self._reader() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("COMMIT")

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        db = self._readers.get()
        try:
            yield db
        except sqlite3.Error as error:
            raise _failure("read", error) from error
        finally:
            self._readers.put(db)


def _failure(what: str, error: sqlite3.Error) -> StoreError:
    kind = StoreDamaged if is_damage(error) else StoreError
    return kind(f"the store cannot be {what}: {error}")


def _other_than(value: str) -> str:
    return '"corrupt"' if value != '"corrupt"' else '"corrupt again"'


def _take_lock(path: Path) -> IO[str]:
    """Own the directory until the returned file is closed; wait a moment for a process that is just ending."""
    file = path.open("a")
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.close()
                raise StoreError(f"{path.parent} is in use by another process") from None
            time.sleep(0.05)
        else:
            return file


def _net_effect(
    entries: Sequence[Entry],
) -> tuple[bool, list[tuple[str, str, int, str, int]], list[tuple[str, int]]]:
    """What is left of entries in log order: whether all is emptied first, the records set, the keys deleted, when."""
    cleared = False
    last: dict[str, Entry] = {}
    for entry in entries:
        if entry.op == "epoch":
            cleared = True
            last.clear()
        else:
            last[entry.key] = entry
    changed = [(e.key, e.value, e.position.version, e.write_id, e.at_us) for e in last.values() if e.op == "set"]
    deleted = [(entry.key, entry.position.version) for entry in last.values() if entry.op == "delete"]
    return cleared, changed, deleted


def _state(db: sqlite3.Connection) -> State:
    epoch, version, write_id, at_us = db.execute("SELECT epoch, version, write_id, at_us FROM state").fetchone()
    return State(Position(epoch, version) if epoch else START, write_id, at_us)


def _move(db: sqlite3.Connection, before: Position, after: State) -> None:
    moved = db.execute(
        "UPDATE state SET epoch = ?, version = ?, write_id = ?, at_us = ? WHERE epoch = ? AND version = ?",
        (*after.position, after.write_id, after.at_us, *before),
    )
    if moved.rowcount != 1:
        raise StoreError(f"the store is not at {before} any more: another process changed it")
