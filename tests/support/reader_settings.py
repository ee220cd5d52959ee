"""What a setting means for a reader, measured with the probe on real servers, as the tables of docs/probe.md.

``python -m tests.support.reader_settings`` prints them in about ten minutes; ``--writes 10`` is a smoke run. Every
store has a replica without a delay, and one that is 200 ms behind.
"""

import argparse
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from lab.checking.history import Plan
from lab.checking.promises import judge
from lab.probe import postgresql, redis, sessions
from lab.probe.figures import Interval, ReplicaFigures, figures
from lab.probe.instrument import Limits, run
from lab.probe.target import PREFIX, Target
from tests.support.databases import mariadb as maria
from tests.support.databases import postgresql as pg
from tests.support.redis_replicas import Replicas, address, running
from tests.support.until import until

# The periods of writes and of a server's own work, such as wal_writer_delay, must not be multiples of each other.
_WRITES_PER_SECOND = 3.7  # which a writer that waits 200 ms for each can keep up
_SESSIONS = 3
_SESSION_WRITES_PER_SECOND = 5.0  # at least, if each takes 200 ms
_SESSION_SECONDS_MIN = 3.0  # a busy machine reads few own writes in less, and may miss none of them
_WAIT_MS = 1000
Open = Callable[[], Target]


class Reading(NamedTuple):
    """One setting: how long a write took, what readers of the replicas saw, and what writers saw on the slow one."""

    setting: str
    write_ms: float
    fast: ReplicaFigures
    slow: ReplicaFigures
    own_writes_missed: int
    own_writes_read: int


class Snapshot(NamedTuple):
    """One way to read: of how many reads of the primary, each after an acknowledgement, how many were stale."""

    reader: str
    isolation: str
    stale: int
    reads: int


# -- stores of which a write can wait for replicas ---------------------------------------------------------------------


def reading(setting: str, primary: Open, fast: Open, slow: Open, writes: int) -> Reading:
    """Measure the windows of both replicas, then whether sessions that read the slow one see their own writes."""
    with ExitStack() as stack:
        opened = [node() for node in (primary, fast, slow)]
        for node in opened:
            stack.callback(node.close)
        found = run(opened[0], opened[1:], Limits(_WRITES_PER_SECOND, writes / _WRITES_PER_SECOND, writes))
    assert not found.ended + found.not_removed
    shown = figures(found)
    write_ms = shown["write_ms"]["p50"]
    assert write_ms is not None
    return Reading(setting, write_ms, *shown["replicas"], *_own_writes([primary, slow], writes))


def _own_writes(nodes: Sequence[Open], writes: int) -> tuple[int, int]:
    seconds = max(writes / _SESSION_WRITES_PER_SECOND, _SESSION_SECONDS_MIN)
    plan = Plan("observed", sessions=_SESSIONS, seconds=seconds, keys=_SESSIONS, write_share=0.3, positions=False)
    found = sessions.run(nodes, plan, "primary-writes", Limits(seconds=seconds), stop=threading.Event())
    assert not found.ended + found.not_removed
    (verdict,) = (one for one in judge(found.history) if one.guarantee == "read_your_writes")
    return verdict.violations, verdict.tested


@contextmanager
def synchronous(servers: pg.Servers, standby: str) -> Iterator[None]:
    """Let the primary have this synchronous standby; with an empty name it has none, which is its default."""
    states = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"

    def name(standby: str) -> None:
        servers.primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
        servers.primary.sql("SELECT pg_reload_conf()")
        until(lambda: servers.primary.sql(states) == [(int(bool(standby)),)])

    name(standby)
    try:
        yield
    finally:
        name("")


PG_SETTINGS = (
    *(("", level) for level in ("off", "on", "remote_apply")),
    *((standby, level) for standby in ("fast", "slow") for level in ("local", "remote_write", "on", "remote_apply")),
)


def of_postgresql(
    servers: pg.Servers, writes: int, settings: Sequence[tuple[str, str]] = PG_SETTINGS
) -> Iterator[Reading]:
    """``synchronous_commit`` is set in the address, for the probe's connection only."""
    for standby, level in settings:
        with synchronous(servers, standby):
            primary, fast, slow = (
                partial(postgresql.node, f"{server.address()} options='-c synchronous_commit={level}'", None)
                for server in (servers.primary, servers.fast, servers.slow)
            )
            where = {"": "none", "fast": "the undelayed one", "slow": "the 200 ms one"}[standby]
            yield reading(f"{where} | `{level}`", primary, fast, slow, writes)


class WaitingNode(redis.Node):
    """The probe's node, whose every write is followed by ``WAIT`` for this number of replicas."""

    waits_for = 0

    def write(self, key: str, number: int) -> None:
        wait = ["WAIT", self.waits_for, _WAIT_MS] if self.waits_for else ["PING"]
        self._ask(["ZADD", PREFIX, "GT", number, key], wait)


def of_redis(servers: Replicas, writes: int, waits: Sequence[int] = (0, 1, 2)) -> Iterator[Reading]:
    def waiting(waits_for: int) -> WaitingNode:
        found = WaitingNode({"host": "127.0.0.1", "port": servers.primary.port}, None)
        found.waits_for = waits_for
        return found

    for waits_for in waits:
        fast, slow = (partial(redis.node, address(server), None) for server in (servers.fast, servers.slow))
        setting = f"`WAIT {waits_for}`" if waits_for else "no `WAIT`"
        yield reading(setting, partial(waiting, waits_for), fast, slow, writes)


# -- what a reader's own connection shows ------------------------------------------------------------------------------

READERS = tuple((autocommit, level) for autocommit in (True, False) for level in ("READ COMMITTED", "REPEATABLE READ"))


def snapshots(primary: Target, connect: Callable[[bool, str], Any], writes: int) -> Iterator[Snapshot]:
    """Write, and after each acknowledgement read once on the same server, over one kept connection."""
    for autocommit, isolation in READERS:
        primary.prepare()
        primary.write("k", 0)
        connection = connect(autocommit, isolation)
        try:
            cursor = connection.cursor()
            stale = 0
            cursor.execute("SELECT number FROM lab_probe.numbers")
            cursor.fetchall()
            for number in range(1, writes + 1):
                primary.write("k", number)
                cursor.execute("SELECT number FROM lab_probe.numbers")
                stale += cursor.fetchall()[0][0] < number
        finally:
            connection.close()
            primary.remove()
        yield Snapshot("autocommit" if autocommit else "one transaction", isolation, stale, writes)


def of_postgresql_readers(servers: pg.Servers, writes: int) -> Iterator[Snapshot]:
    def connect(autocommit: bool, isolation: str) -> Any:
        found = psycopg.connect(servers.primary.address(), autocommit=autocommit)
        found.isolation_level = psycopg.IsolationLevel[isolation.replace(" ", "_")]
        return found

    with closing(postgresql.node(servers.primary.address(), None)) as primary:
        yield from snapshots(primary, connect, writes)


def of_mariadb_readers(servers: maria.Servers, writes: int) -> Iterator[Snapshot]:
    from lab.probe import mysql

    def connect(autocommit: bool, isolation: str) -> Any:
        found = servers.primary.connect("prober", autocommit=autocommit)
        found.cursor().execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {isolation}")
        return found

    with closing(mysql.node(servers.primary.address(), None)) as primary:
        yield from snapshots(primary, connect, writes)


# -- tables ------------------------------------------------------------------------------------------------------------

_WINDOWS = (
    "a write took | stale at the ack, undelayed | p95 of its window | stale at the ack, 200 ms | p95 of its window"
)
_READINGS = f"{_WINDOWS} | own writes missed, 200 ms"
HEADINGS = {
    "postgresql": f"synchronous standby | `synchronous_commit` | {_READINGS}",
    "redis": f"after each write | {_READINGS}",
    "readers": "store | reads in | isolation | stale reads",
}


def print_heading(of: str) -> None:
    _print_row(HEADINGS[of])
    _print_row(" | ".join(["---"] * len(HEADINGS[of].split(" | "))))


def print_readings(found: Iterator[Reading]) -> None:
    for one in found:
        cells = [f"{one.write_ms:.1f} ms", *_cells(one.fast), *_cells(one.slow)]
        _print_row(" | ".join([one.setting, *cells, f"{one.own_writes_missed} of {one.own_writes_read}"]))


def _cells(found: ReplicaFigures) -> tuple[str, str]:
    return _between(found["stale"][0], 100, "%"), _between(found["quantiles_ms"]["p95"], 1, "ms")


def _between(found: Interval, factor: float, unit: str) -> str:
    ends = (None if end is None else round(end * factor) for end in (found["at_least"], found["at_most"]))
    low, high = ("?" if end is None else f"{end}" for end in ends)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def print_snapshots(store: str, found: Iterator[Snapshot]) -> None:
    for one in found:
        _print_row(f"{store} | {one.reader} | {one.isolation} | {one.stale} of {one.reads}")


def _print_row(cells: str) -> None:
    print(f"| {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=100, help="for each setting")
    parser.add_argument("--postgresql", choices=["wheel", "debian"], default="wheel")
    parser.add_argument("--redis", choices=["valkey", "redis-server"], default="valkey")
    chosen = parser.parse_args()
    with pg.Servers.running(chosen.postgresql) as servers:
        print_heading("postgresql")
        print_readings(of_postgresql(servers, chosen.writes))
        print()
        print_heading("readers")
        print_snapshots("PostgreSQL", of_postgresql_readers(servers, chosen.writes))
    with maria.Servers.running() as started:
        print_snapshots("MariaDB", of_mariadb_readers(started, chosen.writes))
    print()
    with tempfile.TemporaryDirectory() as directory, running(chosen.redis, Path(directory)) as found:
        print_heading("redis")
        print_readings(of_redis(found, chosen.writes))


if __name__ == "__main__":
    main()
