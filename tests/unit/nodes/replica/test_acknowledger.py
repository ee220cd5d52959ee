"""Acknowledgements: in batches, sent again after a failure, and bounded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broker.errors import LogUnreachable
from broker.log import ReplicationLog
from broker.position import START, Position
from nodes.replica import acknowledger as acknowledging
from nodes.replica.acknowledger import Acknowledger
from tests.support.clock import FakeClock


@pytest.fixture
def log(fake: Any) -> ReplicationLog:
    found = ReplicationLog(fake)
    found.open("o")
    found.join("r1", START)
    return found


def deliver(log: ReplicationLog, count: int) -> list[Position]:
    for number in range(count):
        log.append("set", "k", str(number), f"w{number}")
    return [found.position for found in log.read("r1", count + 1, 1)]


def test_acknowledgements_go_out_in_batches(log: ReplicationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledging, "_BATCH", 3)
    acknowledger = Acknowledger(log, "r1", 0, FakeClock().now_us)
    acknowledger.add(deliver(log, 4))
    left = []
    while acknowledger.step():
        left.append(log.groups()[0].pending)
    assert left == [2, 0]


def test_a_failed_acknowledgement_is_sent_again(log: ReplicationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledger = Acknowledger(log, "r1", 0, FakeClock().now_us)
    acknowledger.add(deliver(log, 2))

    def fail(*_: Any) -> int:
        raise LogUnreachable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(log, "acknowledge", fail)
        with pytest.raises(LogUnreachable):
            acknowledger.step()
    assert len(acknowledger) == 3
    assert acknowledger.step()
    assert log.groups()[0].pending == 0


def test_the_reader_is_held_back_while_too_many_acknowledgements_wait(
    log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledging, "_QUEUED_MAX", 2)
    acknowledger = Acknowledger(log, "r1", 0, FakeClock().now_us)
    acknowledger.add(deliver(log, 3))
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(acknowledger.wait_for_room)
        assert not waiter.done()
        acknowledger.step()
        waiter.result(5)
