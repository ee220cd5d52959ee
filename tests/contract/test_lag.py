"""The contract of lag, over the fake and over every real server."""

from typing import Any

import pytest

from broker import lag
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.registry import Member


def member(replica: str = "r1", position: Position = START, seen_at_us: int = 0) -> Member:
    return Member(replica, f"http://{replica}:8001", "http://127.0.0.1:8001", position, seen_at_us, 0)


@pytest.fixture
def log(client: Any) -> ReplicationLog:
    found = ReplicationLog(client)
    found.open("o")
    found.group("r1").join(START)
    return found


def write(log: ReplicationLog, count: int) -> None:
    for number in range(count):
        log.append("set", "k", str(number), f"w{number}")


def test_an_idle_replica_lags_by_nothing(log: ReplicationLog) -> None:
    write(log, 2)
    log.group("r1").acknowledge([entry.position for entry in log.group("r1").read(10, 1)])
    assert lag.observe(log, [member()]) == {"r1": lag.Lag(0, 0.0, 2, 2, 0.0, 0, 0)}


def test_pending_entries_are_lag(log: ReplicationLog) -> None:
    write(log, 3)
    log.group("r1").read(10, 1)
    log.group("r1").acknowledge([Position(1, 0), Position(1, 1)])
    found = lag.observe(log, [member()])["r1"]
    assert (found.versions, found.pending, found.undelivered) == (2, 2, 0)
    assert found.seconds > 0


def test_a_stopped_replica_lags_by_undelivered_entries(log: ReplicationLog) -> None:
    write(log, 3)
    found = lag.observe(log, [member()])["r1"]
    assert (found.versions, found.pending, found.undelivered) == (3, 0, 3)
    assert found.seconds > 0


def test_lag_is_not_0_if_the_log_no_longer_holds_the_missing_entries(log: ReplicationLog) -> None:
    write(log, 3)
    log.trim(Position(1, 3))
    found = lag.observe(log, [member()])["r1"]
    assert found.versions == 3
    assert found.seconds > 0


def test_a_delayed_acknowledgement_is_not_lag(log: ReplicationLog) -> None:
    write(log, 3)
    log.group("r1").read(10, 1)
    found = lag.observe(log, [member(position=Position(1, 3))])["r1"]
    assert (found.versions, found.seconds, found.pending) == (0, 0.0, 4)
    assert (found.applied, found.acknowledged) == (3, 0)
    assert found.ack_seconds > 0
