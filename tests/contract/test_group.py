"""The contract of a replica's group, over the fake and over every real server."""

from typing import Any

import pytest

from broker.errors import LogMissing
from broker.log import ReplicationLog
from broker.position import START, Position
from tests.support.history import positions, put


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
