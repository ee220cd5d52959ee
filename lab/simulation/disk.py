"""The disks of the nodes: real SQLite files, which can be full, and which a power failure leaves without what is not
synchronized.

A process that is killed leaves its files as they are. A power failure also takes a part, drawn at random, of the
write-ahead log since its last checkpoint: that is all that SQLite had not asked the system to write.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Literal
from unittest.mock import patch

from lab.simulation.scheduler import Scheduler

_FILE, _WAL = "store.sqlite", "store.sqlite-wal"
_DAMAGES = ("", "PRAGMA user_version = 99", "DROP TABLE IF EXISTS data")  # "": bytes are overwritten
_SALTS = slice(16, 24)  # of the write-ahead log's header: they change when it starts over


class Disk:
    """The files of one node, in a directory for each of its processes."""

    def __init__(self, root: Path, random: Random) -> None:
        self._root, self._random = root, random
        self._processes = 0
        self.directory = root / "0"
        self.is_full = False
        self.is_damaged = False  # as the next commit notices
        self._synced = b"", 0  # the salts, and the bytes, of the write-ahead log at its last checkpoint

    def synchronized(self) -> None:
        """A checkpoint has synchronized the write-ahead log as it is."""
        wal = self.directory / _WAL
        if wal.exists():
            with wal.open("rb") as file:
                self._synced = file.read(32)[_SALTS], wal.stat().st_size

    def leave(self, how: Literal["killed", "power", "damaged"]) -> None:
        """Continue with the files as the end of the process leaves them."""
        before = self.directory
        self._processes += 1
        self.directory = self._root / str(self._processes)
        self.directory.mkdir(parents=True)
        for name in (_FILE, _WAL):
            if (before / name).exists():
                shutil.copyfile(before / name, self.directory / name)
        if how == "power":
            self._lose(self.directory / _WAL)
        if how == "damaged" and (self.directory / _FILE).exists():
            self._damage(self.directory / _FILE)
        self.is_damaged = False
        self._synced = b"", 0

    def remove(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)

    def _damage(self, file: Path) -> None:
        """Leave a file that is none of SQLite, is of another version, or lacks a table."""
        change = self._random.choice(_DAMAGES)
        with closing(sqlite3.connect(file)) as db:
            db.execute(change or "PRAGMA user_version")
            # SQLite does not look at what has a newer version in the write-ahead log.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if not change:
            with file.open("r+b") as opened:
                opened.write(self._random.randbytes(64))

    def _lose(self, wal: Path) -> None:
        if not wal.exists():
            return
        with wal.open("r+b") as file:
            salts, synced = self._synced
            least = synced if file.read(32)[_SALTS] == salts else 0
            size = wal.stat().st_size
            file.truncate(least + int((size - least) * self._random.random()))


class _Connection(sqlite3.Connection):
    """A connection whose steps are those between which a process can end."""

    step: Callable[[], None]
    disk_of: Callable[[], Disk | None]

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.step()
        if sql.startswith("PRAGMA wal_checkpoint") and (disk := self.disk_of()) is not None:
            found = super().execute(sql, parameters)
            disk.synchronized()
            return found
        return super().execute(sql, parameters)

    def executescript(self, sql_script: str, /) -> sqlite3.Cursor:
        if (disk := self.disk_of()) is not None and disk.is_full:
            raise sqlite3.OperationalError("database or disk is full")
        return super().executescript(sql_script)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> Literal[False]:
        self.step()
        disk = self.disk_of()
        if kind is None and self.in_transaction and self.total_changes and disk is not None:
            if disk.is_damaged:
                self.rollback()
                damaged = sqlite3.DatabaseError("database disk image is malformed")
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged
            if disk.is_full:
                self.rollback()
                raise sqlite3.OperationalError("database or disk is full")
        super().__exit__(kind, error, trace)
        self.step()
        return False


@contextmanager
def installed(scheduler: Scheduler, disks: dict[str, Disk]) -> Iterator[None]:
    """Let SQLite use these disks, by the names of processes. Its steps are those between which others can run."""

    def disk_of() -> Disk | None:
        return disks.get(scheduler.process.name)

    connect = sqlite3.connect

    def connected(path: Path, **options: Any) -> sqlite3.Connection:
        return connect(path, factory=_Connection, **options)

    with (
        patch.object(_Connection, "step", staticmethod(scheduler.give_way), create=True),
        patch.object(_Connection, "disk_of", staticmethod(disk_of), create=True),
        patch.object(sqlite3, "connect", connected),
    ):
        yield
