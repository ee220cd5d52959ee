"""The contract of inspection, over the fake and over every real server."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from broker.connection import connect
from broker.errors import LogRefused, PositionLost
from broker.log import ReplicationLog
from broker.position import START, Position
from tests.conftest import REAL_SERVERS
from tests.support.history import positions, put
from tests.support.logserver import LogServer


def test_the_newest_position_of_an_age_is_found_in_a_continued_epoch(log: ReplicationLog) -> None:
    for key in "abc":
        put(log, key)
    log.open("o", in_doubt=True)
    put(log, "d")
    assert log.history.before(0) == (Position(2, 4), Position(2, 4))
    oldest, head = log.history.before(10**12)
    assert oldest < Position(2, 3)
    assert head == Position(2, 4)


def evicting(client: Any) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")


def unlogged(client: Any) -> None:
    client.config_set("appendonly", "no")


def copying(client: Any) -> None:
    client.config_set("replica-read-only", "no")
    client.execute_command("REPLICAOF", "127.0.0.1", "1")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (evicting, "maxmemory-policy is allkeys-lru.*CONFIG SET maxmemory-policy noeviction"),
        (unlogged, "appendonly is no.*CONFIG SET appendonly yes"),
        (copying, "is a replica of another server"),
    ],
)
def test_a_server_that_can_lose_acknowledged_data_is_reported(
    server: LogServer, trouble: Callable[[Any], None], said: str
) -> None:
    client = connect(server.url)
    log = ReplicationLog(client)
    assert log.history.hazard() is None
    trouble(client)
    assert re.search(said, log.history.hazard() or "")


def test_a_server_that_evicts_only_expiring_keys_keeps_the_log(server: LogServer) -> None:
    client = connect(server.url)
    client.config_set("maxmemory-policy", "volatile-lru")
    assert ReplicationLog(client).history.hazard() is None


def test_no_hazard_is_reported_if_the_user_cannot_run_info(server: LogServer) -> None:
    client = connect(server.url)
    client.acl_setuser("default", commands=["-info"])
    assert ReplicationLog(client).history.hazard() is None


def test_reading_between_positions_fails_if_the_first_is_gone(log: ReplicationLog) -> None:
    for key in "abc":
        put(log, key)
    log.trim(Position(1, 1))
    assert positions(log.history.between(Position(1, 2), Position(1, 3), 10)) == ["1-2", "1-3"]
    with pytest.raises(PositionLost):
        log.history.between(Position(1, 1), Position(1, 3), 10)


def test_the_first_entry_after_a_position(log: ReplicationLog) -> None:
    put(log, "a")
    (found,) = log.history.after(Position(1, 0), 1)
    assert found is not None
    assert found.position == Position(1, 1)
    assert log.history.after(Position(1, 1), 1) == []


def test_the_newest_position_of_an_age(log: ReplicationLog) -> None:
    for key in "abcdefgh":
        put(log, key)
    entries = log.history.newest(8)
    head = Position(1, 8)
    assert log.history.before(0) == (head, head)
    assert log.history.before(3_600_000_000) == (Position(1, 0), head)
    for entry in entries:
        # Time passes between question and answer, so the age can be slightly higher.
        found, _ = log.history.before(log.history.now_us() - entry.at_us)
        assert found >= max(other.position for other in entries if other.at_us <= entry.at_us)
    log.trim(Position(1, 5))
    assert log.history.before(3_600_000_000) == (Position(1, 5), head)
    log.reset("r")
    assert log.history.before(0) == (Position(2, 0), Position(2, 0))


def test_there_are_no_groups_without_a_log(client: Any) -> None:
    assert ReplicationLog(client).history.groups() == []


@pytest.mark.parametrize("client", REAL_SERVERS, indirect=True)  # the fake does not count a repeated delivery
def test_the_delivery_count_of_each_pending_entry_is_reported(log: ReplicationLog) -> None:
    group = log.group("r1")
    group.join(log.head().position)
    for key in "abc":
        put(log, key)
    assert log.history.deliveries("r1", 10) == {}
    first, second, third = (entry.position for entry in group.read(10, 1))
    assert log.history.deliveries("r1", 10) == {first: 1, second: 1, third: 1}
    group.pending(first, 1)
    group.acknowledge([first])
    assert log.history.deliveries("r1", 10) == {second: 2, third: 1}
    assert log.history.deliveries("r1", 1) == {second: 2}


def test_what_is_delivered_to_each_group_is_known_at_a_time_of_the_log(log: ReplicationLog) -> None:
    first, second = log.group("r1"), log.group("r2")
    for group in (first, second):
        group.join(START)
    put(log, "a")
    put(log, "b")
    first.read(2, 1)
    earliest_us = log.history.now_us()
    found = log.history.delivered()
    assert found.positions == {"r1": Position(1, 1), "r2": START}
    assert earliest_us <= found.at_us <= log.history.now_us()


def test_nothing_is_delivered_without_a_log(client: Any) -> None:
    with pytest.raises(LogRefused):
        ReplicationLog(client).history.delivered()
