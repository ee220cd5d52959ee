"""A minimal replica: read from a group, store in SQLite, acknowledge. A line of input starts it; prints seconds."""

import json
import os
import sqlite3
import sys
import time
from contextlib import suppress
from typing import Any

from broker.connection import connect

_BATCH = 1000
_UPSERT = """
INSERT INTO data (key, value, version) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version
"""


def apply(url: str, stream: str, group: str, count: int, path: str) -> float:
    client: Any = connect(url, answer_timeout_seconds=30)
    with sqlite3.connect(path, isolation_level=None) as db:
        db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
        db.execute("CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT, version TEXT) WITHOUT ROWID")
        print("ready", flush=True)
        sys.stdin.readline()
        began, left = time.perf_counter(), count
        while left > 0:
            ((_, entries),) = client.xreadgroup(group, group, {stream: ">"}, count=_BATCH, block=1000)
            db.execute("BEGIN IMMEDIATE")
            db.executemany(_UPSERT, [(fields["key"], fields["value"], name) for name, fields in entries])
            db.execute("COMMIT")
            client.xack(stream, group, *[name for name, _ in entries])
            left -= len(entries)
        return time.perf_counter() - began


if __name__ == "__main__":
    _, stream, group, count, path = sys.argv
    with suppress(KeyboardInterrupt):
        print(json.dumps({"seconds": apply(os.environ["LAB_REDIS_URL"], stream, group, int(count), path)}))
