"""A replica that is right, as a lesson. The contract is docs/bring-your-own.md; first_try.py shows the usual mistakes.

One thread follows the log: acknowledge, read, wait, apply, and again. Others answer reads. They meet only in SQLite.
"""

import json
import logging
import os
import sqlite3
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from flask import Flask
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from werkzeug.serving import WSGIRequestHandler, make_server

Position = tuple[int, int]  # epoch and version; compares as positions do
BATCH = 500
SCHEMA = """
CREATE TABLE IF NOT EXISTS data (key TEXT PRIMARY KEY, value TEXT, version INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY, epoch INTEGER, version INTEGER);
INSERT OR IGNORE INTO state VALUES (1, 0, 0);
"""


def position_of(text: str) -> Position:
    epoch, version = text.split("-")
    return int(epoch), int(version)


class Entry(NamedTuple):
    name: str  # the ID in the stream, which is the position as text
    position: Position
    op: str
    key: str
    value: str  # JSON text
    at_us: int


class Store:
    """The data and the position that they are at, always changed together: that is what makes redelivery harmless."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "store.sqlite"
        self.local = threading.local()  # one connection per thread
        self.db().executescript(SCHEMA)
        self.position = self.read()  # for the thread that writes

    def db(self) -> sqlite3.Connection:
        if not hasattr(self.local, "db"):
            self.local.db = db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
            db.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
            # A commit is in the system's memory when it returns, which survives kill -9, and on the disk a bit later.
            # A power failure can lose the last commits, but data and position together: a gap, and a snapshot closes
            # it. FULL would sync each commit. Without a primary to take a snapshot from, this would need FULL.
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 10000")  # pages; a checkpoint syncs, which can take 100 ms: rarely
        return self.local.db  # type: ignore[no-any-return]

    def apply(self, entries: list[Entry]) -> None:
        with self.db() as db:  # commits, or rolls back after an error
            db.execute("BEGIN IMMEDIATE")
            for entry in entries:
                self.change(db, entry)
            self.move(db, entries[-1].position)

    def change(self, db: sqlite3.Connection, entry: Entry) -> None:
        if entry.op == "set":
            db.execute("INSERT OR REPLACE INTO data VALUES (?, ?, ?)", (entry.key, entry.value, entry.position[1]))
        elif entry.op == "delete":
            db.execute("DELETE FROM data WHERE key = ?", (entry.key,))
        elif entry.op == "epoch" and not entry.value:  # a reset; with a value, the epoch keeps the content
            db.execute("DELETE FROM data")

    def install(self, position: Position, records: dict[str, dict[str, Any]]) -> None:
        with self.db() as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM data")
            rows = [(key, json.dumps(record["value"]), record["version"]) for key, record in records.items()]
            db.executemany("INSERT INTO data VALUES (?, ?, ?)", rows)
            self.move(db, position)

    def move(self, db: sqlite3.Connection, position: Position) -> None:
        db.execute("UPDATE state SET epoch = ?, version = ?", position)
        self.position = position

    def read(self) -> Position:
        epoch, version = self.db().execute("SELECT epoch, version FROM state").fetchone()
        return epoch, version

    def get(self, key: str) -> tuple[Position, str | None, int]:
        """Return a value, its version, and the position that this is true at: one statement sees one moment."""
        query = "SELECT epoch, state.version, value, data.version FROM state LEFT JOIN data ON key = ?"
        epoch, version, value, changed = self.db().execute(query, (key,)).fetchone()
        return (epoch, version), value, changed


class Replica:
    def __init__(self, store: Store, redis: Redis, namespace: str, name: str) -> None:
        self.store, self.redis, self.namespace, self.name, self.log = store, redis, namespace, name, f"{namespace}:log"
        self.waiting: deque[Entry] = deque()  # delivered and not due yet, in log order
        self.last = store.position  # of the newest entry delivered without a gap
        self.done: list[str] = []  # to acknowledge
        self.cursor = ">"  # what to read next: pending entries after an ID, or ">", new ones
        self.delay_us = self.clock_us = 0.0  # clock_us: how far the log server's clock is ahead of the monotonic one

    def run(self) -> None:
        while True:
            try:
                self.start()
                while True:
                    self.step()
            except RedisError as error:  # refused, cut, silent, no longer the master; reads are still answered
                print(f"log server: {error}", file=sys.stderr)
                self.redis.connection_pool.disconnect()
                time.sleep(0.2)

    def start(self) -> None:
        """Begin as after a restart, also on each new connection: the reply that was lost may have contained entries.

        They are pending for this consumer, and no other one gets them. So pending entries come before new ones.
        """
        try:
            self.redis.xgroup_create(self.log, self.name, "0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self.waiting.clear()
        self.done.clear()
        self.last, self.cursor, self.clock_us = self.store.position, "0", float("-inf")

    def step(self) -> None:
        asked = self.cursor
        found, head = self.exchange()
        self.take(found)
        if asked == ">" and not found and self.last < head:
            self.snapshot()  # the missing entries were trimmed, and nothing has been written since
        if self.waiting:  # not longer than 10 ms: the delay can change, and a reset can arrive
            time.sleep(min(max(self.due_us(self.waiting[0]) - self.now_us(), 0) / 1e6, 0.01))
        self.apply_due()

    def exchange(self) -> tuple[list[Any], Position]:
        """Acknowledge what is done, and read, in one round trip; the head was read before the entries."""
        pipe = self.redis.pipeline(transaction=False)
        if self.done:
            pipe.xack(self.log, self.name, *self.done)
        pipe.hmget(f"{self.namespace}:head", "epoch", "version")
        pipe.hget(f"{self.namespace}:settings", self.name)
        pipe.xreadgroup(self.name, self.name, {self.log: self.cursor}, BATCH, None if self.waiting else 500)
        pipe.time()
        *_, head, settings, reply, (seconds, us) = pipe.execute()
        self.done.clear()
        # The answer is older than now, so this clock is late by the way back, and never early.
        self.clock_us = max(self.clock_us, seconds * 1e6 + us - time.monotonic() * 1e6)
        self.delay_us = 1000 * json.loads(settings or "{}").get("delay", {}).get("ms", 0)
        found = reply[0][1] if reply else []
        if self.cursor != ">":
            self.cursor = found[-1][0] if found else ">"
        return found, (int(head[0] or 0), int(head[1] or 0))

    def take(self, found: list[Any]) -> None:
        for name, fields in found:
            position = position_of(name)
            # Applied before, or of another program, or trimmed while it was pending: then the next entry shows a gap.
            if position <= self.store.position or not fields or "op" not in fields:
                self.done.append(name)
            elif position > self.last:  # otherwise it waits already
                entry = Entry(name, position, fields["op"], fields["key"], fields["value"], int(fields["at"]))
                if not self.connects(entry):
                    self.snapshot()
                    return
                if entry.op == "epoch" and not entry.value:  # a reset voids what waits
                    self.done += [one.name for one in self.waiting]
                    self.waiting.clear()
                self.waiting.append(entry)
                self.last = position

    def connects(self, entry: Entry) -> bool:
        """Whether nothing is missing between the last entry and this one."""
        if entry.op == "epoch":  # a reset connects to everything, a continuation to the position that it continues
            return not entry.value or position_of(json.loads(entry.value)) == self.last
        return entry.position == (self.last[0], self.last[1] + 1)

    def snapshot(self) -> None:
        """Replace everything by the primary's store; what is pending up to there is acknowledged as applied before."""
        pipe = self.redis.pipeline(transaction=True)  # MULTI: content and position of one moment
        pipe.hgetall(f"{self.namespace}:data")
        pipe.hmget(f"{self.namespace}:head", "epoch", "version")
        data, (epoch, version) = pipe.execute()
        self.store.install((int(epoch), int(version)), {key: json.loads(text) for key, text in data.items()})
        self.redis.xgroup_setid(self.log, self.name, f"{epoch}-{version}")
        self.start()

    def due_us(self, entry: Entry) -> float:
        return 0 if entry.op == "epoch" else entry.at_us + self.delay_us

    def now_us(self) -> float:
        return time.monotonic() * 1e6 + self.clock_us

    def apply_due(self) -> None:
        due: list[Entry] = []
        while self.waiting and len(due) < BATCH and self.due_us(self.waiting[0]) <= self.now_us():
            due.append(self.waiting.popleft())
        if due:
            self.settle(due)

    def settle(self, due: list[Entry]) -> None:
        self.store.apply(due)  # first durable,
        self.done += [entry.name for entry in due]  # and only then acknowledged, with the next exchange


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise the body of an answer waits 40 ms for the confirmation of its header


def make_app(store: Store) -> Flask:
    app = Flask(__name__)
    app.url_map.merge_slashes = False

    @app.get("/version")
    def version() -> dict[str, Any]:
        epoch, number = store.read()
        return {"position": f"{epoch}-{number}", "version": number, "epoch": epoch}

    @app.get("/data/<path:key>")
    def data(key: str) -> tuple[dict[str, Any], int]:
        (epoch, number), value, changed = store.get(key)
        position = f"{epoch}-{number}"
        if value is None:
            return {"position": position}, 404
        return {"key": key, "value": json.loads(value), "version": changed, "position": position}, 200

    return app


def main(store_type: type[Store] = Store, replica_type: type[Replica] = Replica) -> None:
    """SIGTERM needs no handler: a program that survives kill -9 can also end at once."""
    sys.setswitchinterval(0.0005)  # seconds; otherwise each busy reader holds up the thread that applies for 5 ms
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    environment = os.environ
    store = store_type(Path(environment["LAB_DATA_DIR"]))
    server = make_server(
        "127.0.0.1", int(environment["LAB_PORT"]), make_app(store), threaded=True, request_handler=Handler
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # Without retries: a repeated XREADGROUP would skip the entries in the reply that was lost.
    options: dict[str, Any] = {
        "decode_responses": True,
        "protocol": 2,
        "socket_timeout": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    redis = Redis.from_url(environment["LAB_REDIS_URL"], **options)
    # On the main thread: an unexpected error ends the program, which is better than a replica that stands still.
    replica_type(store, redis, environment["LAB_NAMESPACE"], environment["LAB_NODE_ID"]).run()


if __name__ == "__main__":
    main()
