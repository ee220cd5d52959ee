"""SQLite files of a node: their errors, and the quarantine of a damaged file."""

import logging
import sqlite3
from pathlib import Path

_logger = logging.getLogger("lab.store")


class StoreError(Exception):
    """Raised if the store cannot be opened, read or written; a failed change has changed nothing."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged, as opposed to an error of the disk, a lock, or its use."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def quarantine(path: Path, reason: str) -> None:
    """Rename a damaged file, so that the store starts over; the newest one is kept for inspection."""
    kept = path.with_name(path.name + ".quarantined")
    path.replace(kept)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    _logger.error("%s is quarantined as %s, and the store starts over: %s", path, kept.name, reason)
