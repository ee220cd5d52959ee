"""Snapshots: of one position, while writes continue."""

from typing import Any

import pytest

from broker import snapshot
from broker.entry import Record, digest
from broker.errors import LogRefused
from broker.log import ReplicationLog
from broker.position import Position


class Raced(ReplicationLog):
    """A log on which something happens in the middle of each scan."""

    def __init__(self, client: Any, happening: Any) -> None:
        super().__init__(client)
        self._happening = happening

    def scan(self, cursor: int, count: int) -> tuple[int, list[Record]]:
        found = super().scan(cursor, count)
        self._happening(self)
        return found


def put(log: ReplicationLog, key: str, value: str) -> None:
    log.append("set", key, value, f"{key}{value}")


def test_writes_during_the_scan_are_in_the_snapshot(fake: Any) -> None:
    def happening(log: ReplicationLog) -> None:
        put(log, "new", "1")
        put(log, "changed", "2")
        log.append("delete", "gone", "", "d")

    log = Raced(fake, happening)
    log.open("o")
    for key in ("changed", "gone", "kept"):
        put(log, key, "1")
    taken = snapshot.take(log)
    head = log.head()
    assert (taken.position, taken.write_id) == (head.position, "d")
    assert {record.key: record.value for record in taken.records} == {"changed": "2", "kept": "1", "new": "1"}
    assert digest((record.write_id, record.key, record.value) for record in taken.records)[1] == head.digest


def test_a_reset_during_the_scan_restarts_it(fake: Any) -> None:
    happened: list[int] = []

    def happening(log: ReplicationLog) -> None:
        if not happened:
            happened.append(1)
            log.reset("r")
            put(log, "after", "1")

    log = Raced(fake, happening)
    log.open("o")
    put(log, "before", "1")
    taken = snapshot.take(log)
    assert taken.position == Position(2, 1)
    assert [record.key for record in taken.records] == ["after"]


def test_a_snapshot_fails_if_the_log_is_trimmed_during_each_attempt(fake: Any) -> None:
    def happening(log: ReplicationLog) -> None:
        put(log, "k", str(log.head().position.version))
        log.trim(log.head().position)

    log = Raced(fake, happening)
    log.open("o")
    with pytest.raises(LogRefused, match="10 attempts"):
        snapshot.take(log)


def test_an_empty_store_gives_an_empty_snapshot(fake: Any) -> None:
    log = ReplicationLog(fake)
    log.open("o")
    taken = snapshot.take(log)
    assert (taken.position, taken.records) == (Position(1, 0), [])
