"""SQLite files of a node: access by many threads, their errors, and the quarantine of a damaged file."""

import fcntl
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO

_logger = logging.getLogger("lab.store")
_LOCK_WAIT_SECONDS = 10.0  # for a process that is exiting
_READERS = 8
_CHECKPOINT_BYTES = 4 * 2**20  # of write-ahead log; a smaller one is not worth a checkpoint
_RESTART_BYTES = 32 * 2**20  # of write-ahead log; a larger one blocks the writer to restart it


class StoreError(Exception):
    """Raised if the store cannot be opened, read or written; a failed change has changed nothing."""


class StoreDamaged(StoreError):
    """Raised if the file does not match what this code wrote; reopening it starts the store over."""


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    try:
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute("PRAGMA synchronous = NORMAL")
        # A checkpoint syncs to disk, and writers must not wait for that: see Database.checkpoint.
        db.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error:
        db.close()
        raise
    return db


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged, as opposed to a disk error, a lock, or misuse."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def quarantine(path: Path, reason: str) -> None:
    """Rename a damaged file, so that the store starts over; the newest one is kept for inspection."""
    kept = path.with_name(path.name + ".quarantined")
    path.replace(kept)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    _logger.error("%s is quarantined as %s, and the store starts over: %s", path, kept.name, reason)


def take_lock(path: Path) -> IO[str]:
    """Lock the directory until the returned file is closed."""
    file = path.open("a")
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.close()
                raise StoreError(f"{path.parent} is in use by another process") from None
            time.sleep(0.05)


class Database:
    """One SQLite file with a writer and several readers. Thread-safe; a file lock excludes other processes.

    WAL with ``synchronous=NORMAL``: a commit survives the death of the process, but a power failure can lose the newest
    commits. Methods raise ``StoreError``.
    """

    def __init__(self, directory: Path, schema: str, version: int, tables: set[str]) -> None:
        """Open ``store.sqlite`` in ``directory``, which is created if missing.

        A file that is damaged, of another version or with other tables is quarantined.
        """
        self._path = directory / "store.sqlite"
        self._writing = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        with ExitStack() as opened:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                opened.enter_context(take_lock(directory / "store.lock"))
                if (damage := _damage(self._path, version, tables)) is not None:
                    quarantine(self._path, damage)
                self._writer = opened.enter_context(closing(connect(self._path)))
                if self._writer.execute("PRAGMA user_version").fetchone()[0] == 0:
                    self._writer.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {version}; COMMIT;")
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

    def checkpoint(self) -> None:
        """Move a large write-ahead log into the file, concurrently with the writer."""
        size = self._path.with_name("store.sqlite-wal").stat().st_size
        if size < _CHECKPOINT_BYTES:
            return
        with self._reader() as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if size >= _RESTART_BYTES:  # a writer that never pauses never lets the log restart
                db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    @contextmanager
    def transaction(self, committed: Callable[[], object] = lambda: None) -> Iterator[sqlite3.Connection]:
        """``committed`` is called before the next transaction can begin."""
        with self._writing:
            with _translated("written"), self._writer as db:  # commits, or rolls back after an error
                db.execute("BEGIN IMMEDIATE")
                yield db
            committed()

    @contextmanager
    def cut(self) -> Iterator[sqlite3.Connection]:
        """Read from one moment."""
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


def _damage(path: Path, version: int, tables: set[str]) -> str | None:
    """What is wrong with the file; ``None`` if it is intact or missing."""
    try:
        with closing(connect(path)) as db:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found not in {0, version}:
                return f"it has schema version {found}, but this code reads {version}"
            names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if names != (tables if found else set()):
                return f"it has the wrong tables: {', '.join(sorted(names)) or 'none'}"
            (checked,) = db.execute("PRAGMA quick_check(1)").fetchone()
            return None if checked == "ok" else str(checked)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        kind = StoreDamaged if is_damage(error) else StoreError
        raise kind(f"the store cannot be {what}: {error}") from error
