"""Damage to a replica's store."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path


def change(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute(statement).fetchall()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "of another version": lambda file: change(file, "PRAGMA user_version = 99"),
    "without a table": lambda file: change(file, "DROP TABLE data"),
    "no database": lambda file: file.write_bytes(b"not a database" * 100),
    "corrupt": lambda file: file.write_bytes(file.read_bytes()[:4096] + b"\xff" * (file.stat().st_size - 4096)),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:5000]),
}
