"""The queues: their threads wait for each other; acknowledgements go out in batches, are retried, and are bounded."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broker.delay.line import DelayLine, Schedule
from broker.delay.models import Fixed
from broker.entry import Entry
from broker.errors import LogUnreachable
from broker.group import Group
from broker.log import ReplicationLog
from broker.position import START, Position
from nodes.replica import queues
from nodes.replica.queues import Acknowledger, Inbox
from tests.support.clock import FakeClock


def entry(version: int, at_us: int) -> Entry:
    return Entry(Position(1, version), "set", "k", "1", "w", at_us)


def make_inbox(clock: FakeClock, room: int = 10) -> Inbox:
    inbox = Inbox(DelayLine(max_entries=room, max_bytes=10**6), clock.now_us)
    inbox.set_schedule(Schedule(Fixed(1000)))
    return inbox


def test_an_entry_and_a_lower_delay_wake_the_applier() -> None:
    clock = FakeClock()
    inbox = make_inbox(clock)
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(inbox.wait_until_due)
        inbox.offer([entry(1, clock.us)])
        inbox.set_schedule(Schedule(Fixed(0)))
        waiter.result(5)
    assert len(inbox.due(10)) == 1


def test_room_in_the_line_wakes_the_reader() -> None:
    clock = FakeClock()
    inbox = make_inbox(clock, room=1)
    inbox.offer([entry(1, clock.us)])
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(inbox.wait_for_room)
        clock.us += 10**9
        inbox.take(inbox.due(1))
        assert waiter.result(5) == 1


def test_closing_the_inbox_wakes_both_threads_and_a_held_snapshot() -> None:
    inbox = make_inbox(FakeClock(), room=1)
    inbox.offer([entry(1, 10**15)])
    with ThreadPoolExecutor(3) as threads:
        due = threads.submit(inbox.wait_until_due)
        room = threads.submit(inbox.wait_for_room)
        held = threads.submit(inbox.hold, entry(2, 10**15))
        inbox.close()
        due.result(5)
        assert room.result(5) == 0
        assert held.result(5) is False


@pytest.fixture
def log(fake: Any) -> ReplicationLog:
    found = ReplicationLog(fake)
    found.open("o")
    found.group("r1").join(START)
    return found


def deliver(log: ReplicationLog, count: int) -> list[Position]:
    for number in range(count):
        log.append("set", "k", str(number), f"w{number}")
    return [found.position for found in log.group("r1").read(count + 1, 1)]


def test_acknowledgements_go_out_in_batches(log: ReplicationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_BATCH", 3)
    acknowledger = Acknowledger(log.group("r1"), 0, FakeClock().now_us)
    acknowledger.add(deliver(log, 4))
    left = []
    while acknowledger.step():
        left.append(log.history.groups()[0].pending)
    assert left == [2, 0]


def test_a_failed_acknowledgement_is_sent_again(log: ReplicationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledger = Acknowledger(log.group("r1"), 0, FakeClock().now_us)
    acknowledger.add(deliver(log, 2))

    def fail(*_: Any) -> int:
        raise LogUnreachable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Group, "acknowledge", fail)
        with pytest.raises(LogUnreachable):
            acknowledger.step()
    assert len(acknowledger) == 3
    assert acknowledger.step()
    assert log.history.groups()[0].pending == 0


def test_too_many_acknowledgements_hold_the_reader_back(log: ReplicationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_QUEUED_MAX", 2)
    acknowledger = Acknowledger(log.group("r1"), 0, FakeClock().now_us)
    acknowledger.add(deliver(log, 3))
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(acknowledger.wait_for_room)
        assert not waiter.done()
        acknowledger.step()
        waiter.result(5)
