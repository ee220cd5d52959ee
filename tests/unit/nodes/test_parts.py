"""The small parts of a replica: history, inbox, acknowledger, worker, membership."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import LogClock
from broker.delay import Fixed, Schedule
from broker.delay.line import DelayLine
from broker.entry import Entry
from broker.errors import IdTaken, LogUnreachable
from broker.events import Events
from broker.group import Group
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.registry import Member, Registry, Settings
from nodes.http.problem import Problem
from nodes.replica import acknowledger as acknowledging
from nodes.replica import history as histories
from nodes.replica.acknowledger import Acknowledger
from nodes.replica.history import Applied, AppliedHistory
from nodes.replica.inbox import Inbox
from nodes.replica.membership import Membership
from nodes.runtime.background import Background
from tests.support.clock import FakeClock
from tests.support.until import until


def applied(version: int, epoch: int = 1) -> Applied:
    return Applied(Position(epoch, version), version, version + 1, version + 2)


def test_history_finds_what_was_applied_and_forgets_the_oldest() -> None:
    history = AppliedHistory(3)
    assert history.newest() is None
    history.extend([applied(version) for version in range(1, 3)])
    history.extend([applied(version) for version in range(3, 6)])
    assert history.find(Position(1, 2)) is None
    assert history.find(Position(1, 4)) == applied(4)
    assert history.newest() == applied(5)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("after", range(8))
def test_history_after_a_position_is_the_rest_in_order(count: int, after: int) -> None:
    history = AppliedHistory(4)
    history.extend([applied(version) for version in range(1, count + 1)])
    kept = range(max(1, count - 3), count + 1)
    expected = [version for version in kept if version > after]
    assert [found.position.version for found in history.after(Position(1, after), 10)] == expected
    assert [found.position.version for found in history.after(Position(1, after), 2)] == expected[:2]


def test_history_spans_epochs() -> None:
    history = AppliedHistory(10)
    history.extend([applied(1), applied(2), applied(0, epoch=2), applied(1, epoch=2)])
    assert [str(found.position) for found in history.after(Position(1, 2), 10)] == ["2-0", "2-1"]


def test_history_needs_no_more_memory_the_longer_it_goes_on() -> None:
    history, versions = AppliedHistory(500), itertools.count(10_000)

    def most(entries: int) -> int:
        tracemalloc.reset_peak()
        for _ in range(entries):
            history.extend([applied(next(versions))])
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        filled = most(2_000)
        assert most(10_000) < filled * 1.1
    finally:
        tracemalloc.stop()


@given(st.lists(st.lists(st.integers(1, 12), max_size=6), max_size=12), st.integers(0, 13))
def test_history_is_the_end_of_all_that_was_applied(batches: list[list[int]], asked: int) -> None:
    history, everything = AppliedHistory(4), list[Applied]()
    for batch in batches:  # a version may come again: after a snapshot, for one
        found = [Applied(Position(1, version), 0, 0, len(everything) + n) for n, version in enumerate(batch)]
        history.extend(found)
        everything += found
    kept = everything[-4:]
    latest = {applied.position.version: applied for applied in kept}
    assert history.newest() == (kept[-1] if kept else None)
    assert history.find(Position(1, asked)) == latest.get(asked)
    behind = kept[kept.index(latest[asked]) + 1 :] if asked in latest else kept
    assert history.after(Position(1, asked), 3) == [one for one in behind if one.position.version > asked][:3]
    first = max(asked, len(everything) - len(kept))
    assert history.since(asked, 2, -1) == (everything[first : first + 2], max(asked, min(len(everything), first + 2)))


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


def test_closing_the_inbox_wakes_both_and_who_holds_a_snapshot() -> None:
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
    monkeypatch.setattr(acknowledging, "_BATCH", 3)
    acknowledger = Acknowledger(log, "r1", 0, FakeClock().now_us)
    acknowledger.add(deliver(log, 4))
    left = []
    while acknowledger.step():
        left.append(log.history.groups()[0].pending)
    assert left == [2, 0]


def test_a_failed_acknowledgement_is_sent_again(log: ReplicationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledger = Acknowledger(log, "r1", 0, FakeClock().now_us)
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


def test_who_reads_is_held_back_while_too_many_acknowledgements_wait(
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


def test_a_worker_goes_on_after_an_error_and_tells_of_it() -> None:
    steps: list[int] = []
    recovered = threading.Event()

    def step() -> None:
        steps.append(1)
        if len(steps) <= 2:
            raise LogUnreachable("gone")
        recovered.set()
        worker.pause(0.01)

    worker = Background("test", step)
    worker.start()
    assert until(lambda: worker.trouble) == "gone"
    assert recovered.wait(5)
    until(lambda: worker.trouble is None)
    worker.stop()
    assert worker.join(5)


class Registration:
    """A membership, what it says, and what it was told."""

    def __init__(self, client: Any) -> None:
        self.registered = Registry(client)
        self.events = Events(client)
        self.applied: list[Settings] = []
        clock = LogClock(lambda: 5_000_000, lambda: 0, lambda: 0)
        self.membership = Membership(
            registered=self.registered,
            events=self.events,
            clock=clock,
            defaults=Settings(Fixed(500), 0),
            describe=lambda: Member("r1", "http://r1:1", "http://127.0.0.1:1", Position(1, 3), clock.now_us(), 0),
            apply=self.applied.append,
        )


def test_a_replica_registers_and_says_that_it_joined(fake: Any) -> None:
    found = Registration(fake)
    found.membership.step(block_ms=1)
    found.membership.step(block_ms=1)
    (member,) = found.registered.members()
    assert (member.position, member.seen_at_us) == (Position(1, 3), 5_000_000)
    assert [event.fields for event in found.events.after("0-0", 1)] == [{"kind": "joined", "replica": "r1"}]


def test_a_replica_whose_id_is_taken_does_not_register_before_it_is_free(fake: Any) -> None:
    found = Registration(fake)
    other = Member("r1", "http://r1:2", "http://127.0.0.1:2", START, 1_000_000, 0)
    found.registered.heartbeat(other, Settings(Fixed(500), 0))
    with pytest.raises(IdTaken):
        found.membership.step(block_ms=1)
    assert not found.membership.wait_until_registered(0)
    assert found.registered.members() == [other]
    found.registered.forget("r1")
    found.membership.step(block_ms=1)
    assert found.membership.wait_until_registered(0)


def test_settings_are_put_in_force_when_they_change_and_only_then(fake: Any) -> None:
    found = Registration(fake)
    found.membership.step(block_ms=1)
    found.membership.step(block_ms=1)
    changed = Settings(Fixed(7), 8)
    found.registered.set_settings({"r1": changed})
    found.membership.step(block_ms=1)
    assert found.applied == [Settings(Fixed(500), 0), changed]


def test_an_event_ends_the_wait_for_the_next_heartbeat(fake: Any) -> None:
    found = Registration(fake)
    found.membership.step(block_ms=1)
    with ThreadPoolExecutor(1) as threads:
        step = threads.submit(found.membership.step, 60_000)
        found.events.publish("settings", replica="r1")
        step.result(10)


def test_what_was_applied_since_is_told_as_soon_as_there_is_some() -> None:
    history = AppliedHistory(3)
    assert history.since(0, 10, 0) == ([], 0)
    history.extend([Applied(Position(1, version), 0, 0, version) for version in range(1, 6)])
    found, count = history.since(0, 2, 0)
    assert ([applied.applied_us for applied in found], count) == ([3, 4], 4)  # of five, three are remembered
    assert [applied.applied_us for applied in history.since(count, 10, 0)[0]] == [5]
    waiting: list[tuple[list[Applied], int]] = []
    thread = threading.Thread(target=lambda: waiting.append(history.since(5, 10, 10)))
    thread.start()
    history.extend([Applied(Position(1, 6), 0, 0, 6)])
    thread.join(5)
    assert ([applied.applied_us for applied in waiting[0][0]], waiting[0][1]) == ([6], 6)
    history.close()
    assert history.since(6, 10, 10) == ([], 6)


def test_a_request_beyond_the_bound_of_those_that_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "_WAITING_MAX", 0)
    history = AppliedHistory(3)
    with pytest.raises(Problem) as refused:
        history.since(0, 10, 10)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    assert history.since(0, 10, 0) == ([], 0)
