"""SQLite files of a node: their errors, and the quarantine of a damaged file."""

import fcntl
import logging
import sqlite3
import time
from pathlib import Path
from typing import IO

_logger = logging.getLogger("lab.store")
_LOCK_WAIT_SECONDS = 10.0  # for a process that is exiting


class StoreError(Exception):
    """Raised if the store cannot be opened, read or written; a failed change has changed nothing."""


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    try:
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute("PRAGMA synchronous = NORMAL")
        # A checkpoint syncs to disk, and writers must not wait for that: see ReplicaStore.checkpoint.
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
