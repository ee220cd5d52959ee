"""SQLite files of a node: how they fail, and what becomes of a damaged one."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

_logger = logging.getLogger("lab.store")


class StoreError(Exception):
    """Raised when the store cannot be opened, read or written; nothing of what was asked has happened."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is wrong, and not the disk, a lock, or the use that was made of it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def set_aside(path: Path, reason: str) -> None:
    """Keep the newest damaged file for whoever wants to look at it."""
    aside = path.with_name(path.name + ".set-aside")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    _logger.error("%s is set aside as %s, and the store begins anew: %s", path, aside.name, reason)
