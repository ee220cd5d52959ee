"""The contract of a replica's group, over the fake and over every real server."""

import random
from pathlib import Path
from typing import Any

import pytest

from broker.connection import connect
from broker.errors import LogMissing
from broker.log import ReplicationLog
from broker.position import START, Position
from lab.local.log_server import binary_path
from tests.conftest import REAL_SERVERS
from tests.support.history import misstated_lags, positions, put
from tests.support.logserver import LogServer


def test_each_replica_reads_everything_through_its_own_group(log: ReplicationLog) -> None:
    put(log, "a")
    for replica in ("r1", "r2"):
        assert log.group(replica).join(START)
        assert positions(log.group(replica).read(10, 1)) == ["1-0", "1-1"]
        assert log.group(replica).read(10, 1) == []


def test_a_group_is_created_once(log: ReplicationLog) -> None:
    assert log.group("r1").join(START)
    assert not log.group("r1").join(START)


def test_joining_without_a_log_fails(client: Any) -> None:
    with pytest.raises(LogMissing):
        ReplicationLog(client).group("r1").join(START)


def test_an_entry_is_pending_from_reading_until_acknowledgement(log: ReplicationLog) -> None:
    put(log, "a")
    log.group("r1").join(START)
    log.group("r1").read(10, 1)
    (group,) = log.history.groups()
    assert (group.pending, group.oldest_pending, group.newest_pending) == (2, Position(1, 0), Position(1, 1))
    for _ in range(2):  # the second time changes nothing
        log.group("r1").acknowledge([Position(1, 0)])
    (group,) = log.history.groups()
    assert (group.pending, group.oldest_pending, group.last_delivered) == (1, Position(1, 1), Position(1, 1))


def test_pending_entries_come_in_pages(log: ReplicationLog) -> None:
    for key in "abc":
        put(log, key)
    log.group("r1").join(START)
    log.group("r1").read(10, 1)
    first = log.group("r1").pending(START, 2)
    rest = log.group("r1").pending(first[-1][0], 10)
    assert [str(position) for position, _ in first + rest] == ["1-0", "1-1", "1-2", "1-3"]
    assert all(entry is not None for _, entry in first + rest)


def test_a_trimmed_pending_entry_shows_as_missing(log: ReplicationLog) -> None:
    put(log, "a")
    log.group("r1").join(START)
    log.group("r1").read(10, 1)
    log.trim(Position(1, 0))
    assert [entry is None for _, entry in log.group("r1").pending(START, 10)] == [True, False]


def test_rewinding_delivers_everything_after_a_position_again(log: ReplicationLog) -> None:
    for key in "abc":
        put(log, key)
    log.group("r1").join(START)
    log.group("r1").read(10, 1)
    log.group("r1").rewind(Position(1, 1))
    assert positions(log.group("r1").read(10, 1)) == ["1-2", "1-3"]


def test_a_replica_that_left_has_no_group(log: ReplicationLog) -> None:
    log.group("r1").join(START)
    log.group("r1").leave()
    assert log.history.groups() == []


@pytest.mark.parametrize("client", REAL_SERVERS, indirect=True)
def test_lag_is_right_after_each_step(client: Any, log: ReplicationLog) -> None:
    group = log.group("r1")

    def put_many(count: int) -> None:
        for number in range(count):
            put(log, f"k{number % 7}")

    def lag() -> Any:
        assert misstated_lags(client) == []
        return client.xinfo_groups("lab14:log")[0]["lag"]

    put_many(20)
    group.join(Position(1, 5))
    assert lag() == 15
    group.read(3, 1)
    assert lag() == 12
    put_many(5)
    assert lag() == 17
    group.rewind(Position(1, 2))
    assert lag() == 23
    log.trim(Position(1, 1))
    group.read(4, 1)
    assert lag() == 19
    log.trim(Position(1, 15))
    assert lag() == 10, "the log no longer holds 1-7 to 1-15"
    group.read(1, 1)
    assert lag() == 9
    group.rewind(Position(1, 6))
    assert lag() == 10
    group.rewind(Position(1, 20))
    assert lag() == 5
    log.open("continued", Position(1, 30))
    assert lag() == 6, "the entry that starts the epoch counts"
    put_many(2)
    group.rewind(Position(1, 24))
    assert lag() == 4
    group.read(2, 1)
    assert lag() == 2
    log.reset("reset")
    assert lag() == 1
    put_many(2)
    group.read(1, 1)
    assert lag() == 2
    group.read(10, 1)
    assert lag() == 0
    put_many(1)
    assert lag() == 1
    log.shrink(lambda _: 0)
    assert lag() == 0


@pytest.mark.parametrize("client", REAL_SERVERS, indirect=True)
def test_lag_counts_entries_of_other_programs_and_of_earlier_epochs(client: Any, log: ReplicationLog) -> None:
    for _ in range(9):
        put(log, "k")
    for _ in range(3):
        client.xadd("lab14:log", {"a": "b"})
    log.group("r1").join(Position(1, 5))
    assert client.xinfo_groups("lab14:log")[0]["lag"] == 7
    log.open("a new epoch", log.history.foreign() or START)
    log.group("r1").rewind(Position(1, 4))
    assert client.xinfo_groups("lab14:log")[0]["lag"] == 9
    log.group("r1").read(3, 1)
    assert client.xinfo_groups("lab14:log")[0]["lag"] == 6


@pytest.mark.parametrize("client", REAL_SERVERS, indirect=True)
@pytest.mark.parametrize(("foreign", "lag"), [("1-9", None), ("18446744073709551614-18446744073709551614", 3)])
def test_lag_is_unknown_after_an_id_that_leaves_out_versions_until_the_end(
    client: Any, log: ReplicationLog, foreign: str, lag: int | None
) -> None:
    for _ in range(5):
        put(log, "k")
    client.xadd("lab14:log", {"a": "b"}, id=foreign)
    log.group("r1").join(Position(1, 3))
    assert client.xinfo_groups("lab14:log")[0]["lag"] == lag
    assert positions(log.group("r1").read(10, 1)) == ["1-4", "1-5"]
    assert client.xinfo_groups("lab14:log")[0]["lag"] == 0


@pytest.mark.parametrize("client", REAL_SERVERS, indirect=True)
def test_lag_is_unknown_after_another_program_has_deleted_an_entry(client: Any, log: ReplicationLog) -> None:
    for _ in range(5):
        put(log, "k")
    client.xdel("lab14:log", "1-2")
    log.group("r1").join(Position(1, 3))
    assert client.xinfo_groups("lab14:log")[0]["lag"] is None
    log.group("r1").read(10, 1)
    put(log, "k")
    assert client.xinfo_groups("lab14:log")[0]["lag"] == 1


@pytest.mark.parametrize("client", REAL_SERVERS, indirect=True)
@pytest.mark.parametrize("seed", range(4))
def test_lag_is_right_after_every_step_of_a_random_run(client: Any, log: ReplicationLog, seed: int) -> None:
    chance = random.Random(seed)
    names = iter(range(1_000_000))

    def position() -> Position:
        """A position up to the log's last one, also of an entry that does not exist."""
        known = [entry.position for entry in log.history.newest(30)] or [log.head().position]
        epoch, version = chance.choice(known)
        return Position(epoch, max(0, version + chance.choice((-40, -1, 0, 0, 0))))

    def put_some() -> None:
        for _ in range(chance.randrange(1, 20)):
            put(log, f"k{chance.randrange(7)}")

    def add_foreign() -> None:
        client.xadd("lab14:log", {"a": "b"})
        log.open(f"foreign{next(names)}", log.history.foreign() or START)

    def rejoin() -> None:
        group = log.group(chance.choice(("r1", "r2")))
        group.leave()
        group.join(position())

    steps = [
        *[put_some] * 4,
        *[lambda: log.group(chance.choice(("r1", "r2"))).read(chance.randrange(1, 12), 1)] * 6,
        *[lambda: log.group(chance.choice(("r1", "r2"))).rewind(position())] * 3,
        lambda: log.group("r1").rewind(log.head().position),
        lambda: log.group("r1").read(1000, 1),
        lambda: log.trim(position()),
        lambda: log.reset(f"reset{next(names)}"),
        lambda: log.open(f"continued{next(names)}", Position(log.head().position.epoch + chance.randrange(3), 10**6)),
        add_foreign,
        rejoin,
    ]
    log.group("r1").join(START)
    log.group("r2").join(START)
    for number in range(300):
        step = chance.choice(steps)
        step()
        assert misstated_lags(client) == [], f"step {number}"


@pytest.mark.parametrize("which", REAL_SERVERS)
def test_lag_is_right_once_the_log_is_open_on_a_restarted_server(which: str, tmp_path: Path) -> None:
    server = LogServer(binary_path(which), tmp_path)
    server.start()
    try:
        client = connect(server.url)
        log = ReplicationLog(client)
        log.open("open")
        put(log, "a")
        put(log, "b")
        log.group("r1").join(Position(1, 0))
        log.group("r1").read(1, 1)
        server.kill()
        server.start()
        log.open("open again")
        assert misstated_lags(client) == []
    finally:
        server.kill()
