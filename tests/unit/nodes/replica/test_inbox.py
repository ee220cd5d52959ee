"""The inbox between a replica's reader and its applier."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from broker.delay import Fixed, Schedule
from broker.delay.line import DelayLine
from broker.entry import Entry
from broker.position import Position
from nodes.replica.inbox import Inbox
from tests.support.clock import FakeClock


def entry(version: int, at_us: int) -> Entry:
    return Entry(Position(1, version), "set", "k", "1", "w", at_us)


def make_inbox(clock: FakeClock, room: int = 10) -> Inbox:
    inbox = Inbox(DelayLine(max_entries=room, max_bytes=10**6), clock.now_us)
    inbox.set_schedule(Schedule(Fixed(1000)))
    return inbox


def test_the_applier_is_woken_by_an_entry_and_by_a_lower_delay() -> None:
    clock = FakeClock()
    inbox = make_inbox(clock)
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(inbox.wait_until_due)
        inbox.offer([entry(1, clock.us)])
        inbox.set_schedule(Schedule(Fixed(0)))
        waiter.result(5)
    assert len(inbox.due(10)) == 1


def test_the_reader_is_woken_when_there_is_room_again() -> None:
    clock = FakeClock()
    inbox = make_inbox(clock, room=1)
    inbox.offer([entry(1, clock.us)])
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(inbox.wait_for_room)
        clock.us += 10**9
        inbox.take(inbox.due(1))
        assert waiter.result(5) == 1


def test_closing_the_inbox_wakes_both_and_the_holder_of_a_snapshot() -> None:
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
