"""The queues: their threads wait for each other; acknowledgements go out in batches, are retried, and are bounded."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from broker.delay.line import DelayLine, Schedule
from broker.delay.models import DelayModel, Exponential, Fixed, Order
from broker.entry import Entry
from broker.errors import LogUnreachable
from broker.group import Group
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.report import Reports
from nodes.replica import queues
from nodes.replica.history import Recent
from nodes.replica.queues import Acknowledger, Inbox
from nodes.runtime.gate import EMPTY_STATE, PositionGate
from tests.support.clock import FakeClock


def entry(version: int, at_us: int) -> Entry:
    return Entry(Position(1, version), "set", "k", "1", "w", at_us)


def make_inbox(clock: FakeClock, room: int = 10) -> Inbox:
    inbox = Inbox(DelayLine(max_entries=room, max_bytes=10**6), clock.now_us)
    inbox.set_schedule(Schedule(Fixed(1000)))
    return inbox


def returns(call: Callable[[], object], close: Callable[[], object]) -> bool:
    """Whether a call returns before what it waits for is closed."""
    with ThreadPoolExecutor(1) as threads:
        returned, _ = wait([threads.submit(call)], 5)
        close()
    return bool(returned)


def test_an_entry_and_a_lower_delay_wake_the_applier() -> None:
    clock = FakeClock()
    inbox = make_inbox(clock)
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(inbox.wait_until_due)
        inbox.offer([entry(1, clock.us)])
        inbox.set_schedule(Schedule(Fixed(0)))
        waiter.result(5)
    assert len(inbox.due(10)) == 1


def test_a_clock_that_was_ahead_when_the_delay_was_set_does_not_hold_entries_back() -> None:
    clock = FakeClock()
    inbox = make_inbox(clock)
    started_us = clock.us
    clock.us += 3600 * 10**6  # that of a log server that has just taken over
    inbox.set_schedule(Schedule(Fixed(500)))
    inbox.set_rate(10)
    inbox.offer([entry(1, started_us), entry(2, started_us)])
    with inbox.taking(inbox.due(1)):
        pass
    clock.us = started_us + 500_000
    inbox.clock_changed()
    assert returns(inbox.wait_until_due, inbox.close)
    assert [one.position.version for one, _ in inbox.due(10)] == [2]


def test_room_in_the_line_wakes_the_reader() -> None:
    clock = FakeClock()
    inbox = make_inbox(clock, room=1)
    inbox.offer([entry(1, clock.us)])
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(inbox.wait_for_room)
        clock.us += 10**9
        with inbox.taking(inbox.due(1)):
            pass
        assert waiter.result(5) == 1


def test_entries_wait_until_the_step_that_takes_them_has_ended() -> None:
    clock = FakeClock()
    inbox = make_inbox(clock)
    inbox.offer([entry(1, clock.us - 1_000_000)])
    with ThreadPoolExecutor(1) as threads:
        with inbox.taking(inbox.due(1)):
            asked = threads.submit(inbox.__contains__, Position(1, 1))
            assert wait([asked], 0.1).not_done
        assert asked.result(5) is False


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


def deliver(log: ReplicationLog, count: int) -> list[Entry]:
    for number in range(count):
        log.append("set", "k", str(number), f"w{log.head().position}")
    return log.group("r1").read(count + 1, 1)


def redelivered(log: ReplicationLog) -> list[Entry]:
    return [entry for _, entry in log.group("r1").pending(Position(0, 0), 100) if entry is not None]


class Bench:
    """An acknowledger on a fake log, whose clock is moved by hand."""

    def __init__(self, log: ReplicationLog, model: DelayModel | None = None, order: Order = "log") -> None:
        self.log, self.clock, self.lost = log, FakeClock(), False
        gate = PositionGate(EMPTY_STATE, 10)
        self.acknowledger = Acknowledger(log.group("r1"), self.clock.now_us, gate, Recent(10), lambda: self.lost)
        self.schedule = Schedule(model or Fixed(0), order, 0, "r1/ack")
        self.acknowledger.set_schedule(self.schedule)
        self.acknowledger.recovered(START)

    def add(self, count: int) -> list[Position]:
        """Append entries and add them as applied now; return their positions."""
        entries = deliver(self.log, count)
        self.acknowledger.add(entries, entries[-1].position)
        return [entry.position for entry in entries]

    def step(self) -> list[Position]:
        return [one.position for one in self.acknowledger.step()[0]]

    def pending(self) -> int:
        return self.log.history.groups()[0].pending


def test_an_acknowledgement_is_in_the_history_before_a_waiting_request_is_answered(log: ReplicationLog) -> None:
    bench = Bench(log)
    position = bench.add(1)[-1]
    gate, history = bench.acknowledger.gate, bench.acknowledger.history
    advance, known = gate.advance, []

    def advanced(*arguments: Any) -> None:
        known.append(history.find(position))
        advance(*arguments)

    gate.advance = advanced  # type: ignore[method-assign]
    bench.step()
    assert known[0] is not None
    assert known[0].done_us == bench.clock.now_us()


def test_acknowledgements_go_out_in_batches(log: ReplicationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_BATCH", 3)
    bench = Bench(log)
    bench.add(4)
    assert [len(bench.step()) for _ in range(3)] == [3, 2, 0]
    assert bench.pending() == 0


def test_a_failed_acknowledgement_is_sent_again(log: ReplicationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(log)
    bench.add(2)

    def fail(*_: Any) -> None:
        raise LogUnreachable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Group, "acknowledge", fail)
        with pytest.raises(LogUnreachable):
            bench.step()
    assert (len(bench.acknowledger), bench.acknowledger.position) == (3, START)
    assert len(bench.step()) == 3
    assert bench.pending() == 0


def test_too_many_acknowledgements_hold_the_reader_back(log: ReplicationLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_QUEUED_MAX", 2)
    bench = Bench(log)
    bench.add(3)
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(bench.acknowledger.wait_for_room)
        assert not waiter.done()
        bench.step()
        waiter.result(5)


@pytest.mark.parametrize("order", ["log", "arrival"])
def test_each_entry_is_acknowledged_its_own_delay_after_it_was_applied(log: ReplicationLog, order: Order) -> None:
    bench = Bench(log, Exponential(300), order)
    positions = bench.add(20)
    own_us = [bench.clock.us + bench.schedule.delay_us(position) for position in positions]
    due_us = list(itertools.accumulate(own_us, max)) if order == "log" else own_us
    found: list[Position] = []
    for moment_us in sorted(set(due_us)):
        bench.clock.us = moment_us - 1
        assert bench.step() == []
        bench.clock.us = moment_us
        found += bench.step()
    assert found == [position for _, position in sorted(zip(due_us, positions, strict=True))]
    assert bench.acknowledger.position == positions[-1]


def test_a_change_of_the_delay_applies_to_entries_that_already_wait(log: ReplicationLog) -> None:
    bench = Bench(log, Fixed(60_000))
    bench.add(2)
    bench.acknowledger.set_schedule(Schedule(Fixed(10)))
    assert bench.step() == []
    bench.clock.advance_ms(10)
    assert len(bench.step()) == 3


def test_the_acknowledged_position_has_no_gap_before_it(log: ReplicationLog) -> None:
    bench = Bench(log, Exponential(300), "arrival")
    positions = bench.add(20)
    gate, left = bench.acknowledger.gate, set(positions)
    while left:
        bench.clock.advance_ms(5)
        left -= set(bench.step())
        oldest = min(left, default=Position(1, 21))
        assert gate.state.position == (Position(1, oldest.version - 1) if oldest.version else START)
        assert {position for position in positions if not gate.is_reached(position)} == left - {START}


def test_a_lost_acknowledgement_keeps_the_position_until_the_entry_is_delivered_again(log: ReplicationLog) -> None:
    bench = Bench(log)
    bench.lost = True
    bench.add(2)
    assert bench.step() == []
    assert (len(bench.acknowledger), bench.pending(), bench.acknowledger.position) == (3, 3, START)
    bench.lost = False
    bench.acknowledger.add(redelivered(log))
    assert len(bench.step()) == 3
    assert (len(bench.acknowledger), bench.pending(), bench.acknowledger.position) == (0, 0, Position(1, 2))


def during_the_request(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Act once, between the execution of the acknowledgement on the log server and the reception of its reply."""
    acknowledge = Group.acknowledge

    def patched(group: Group, *arguments: Any) -> None:
        monkeypatch.setattr(Group, "acknowledge", acknowledge)
        acknowledge(group, *arguments)
        act()

    monkeypatch.setattr(Group, "acknowledge", patched)


def test_a_lost_acknowledgement_does_not_count_once_the_log_no_longer_has_the_entry(log: ReplicationLog) -> None:
    bench = Bench(log)
    bench.lost = True
    positions = bench.add(2)
    bench.step()
    bench.lost = False
    bench.acknowledger.recovering()
    bench.acknowledger.discard([START, *positions])
    bench.acknowledger.recovered(Position(1, 2))
    bench.step()
    assert (len(bench.acknowledger), bench.pending(), bench.acknowledger.position) == (0, 0, Position(1, 2))


def test_a_lost_acknowledgement_does_not_count_if_an_earlier_one_had_arrived(log: ReplicationLog) -> None:
    bench = Bench(log)
    bench.add(1)
    pending = redelivered(log)  # read just before the acknowledgement arrives
    bench.step()
    bench.acknowledger.add(pending)
    bench.lost = True
    bench.step()
    bench.add(1)
    bench.step()
    assert (len(bench.acknowledger), bench.pending(), bench.acknowledger.position) == (3, 1, Position(1, 1))
    bench.acknowledger.recovering()
    bench.acknowledger.add(redelivered(log))
    bench.step()  # loses it again
    bench.acknowledger.recovered(Position(1, 2))
    assert (len(bench.acknowledger), bench.pending(), bench.acknowledger.position) == (1, 1, Position(1, 1))


@pytest.mark.parametrize("order", ["log", "arrival"])
def test_an_entry_that_was_applied_by_a_clock_that_was_ahead_is_acknowledged_in_time(
    log: ReplicationLog, order: Order
) -> None:
    bench = Bench(log, Fixed(100), order)
    bench.clock.advance_ms(3_600_000)
    bench.add(1)
    bench.clock.advance_ms(-3_600_000)
    bench.acknowledger.clock_changed()
    bench.clock.advance_ms(99)
    assert bench.step() == []
    bench.clock.advance_ms(1)
    assert len(bench.step()) == 2


def test_an_acknowledgement_sent_by_a_clock_that_was_ahead_does_not_hold_up_the_next(
    log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(log)
    bench.clock.advance_ms(3_600_000)
    bench.add(1)

    def set_back() -> None:
        bench.clock.advance_ms(-3_600_000)
        bench.acknowledger.clock_changed()

    during_the_request(monkeypatch, set_back)
    assert len(bench.step()) == 2
    monkeypatch.undo()
    bench.add(1)
    assert returns(bench.acknowledger.wait, bench.acknowledger.close)


def test_an_entry_delivered_again_while_its_acknowledgement_is_lost_is_acknowledged(
    log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(log)
    bench.lost = True
    bench.add(2)

    def end_fault() -> None:
        bench.lost = False
        bench.acknowledger.add(redelivered(log))

    during_the_request(monkeypatch, end_fault)
    assert bench.step() == []
    assert len(bench.step()) == 3
    assert (len(bench.acknowledger), bench.pending()) == (0, 0)


def test_an_entry_delivered_again_before_the_reply_to_its_acknowledgement_is_acknowledged_again(
    log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(log)
    bench.add(2)

    def deliver_again() -> None:
        group = log.group("r1")
        group.rewind(START)
        bench.acknowledger.add(group.read(10, 1))

    during_the_request(monkeypatch, deliver_again)
    assert len(bench.step()) == 3
    assert (len(bench.acknowledger), bench.pending()) == (3, 3)
    assert len(bench.step()) == 3
    assert (len(bench.acknowledger), bench.pending(), bench.acknowledger.position) == (0, 0, Position(1, 2))


def test_a_void_entry_found_while_others_are_acknowledged_is_acknowledged_too(
    log: ReplicationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(log)
    first, *others = [entry.position for entry in deliver(log, 2)]
    bench.acknowledger.discard([first])

    def install() -> None:
        bench.acknowledger.forget()
        bench.acknowledger.discard(others)

    during_the_request(monkeypatch, install)
    bench.step()
    bench.step()
    assert bench.pending() == 0


def test_an_entry_delivered_again_keeps_the_time_of_its_acknowledgement(log: ReplicationLog) -> None:
    bench = Bench(log, Fixed(100))
    bench.add(1)
    bench.clock.advance_ms(99)
    bench.acknowledger.add(redelivered(log))
    bench.clock.advance_ms(1)
    assert len(bench.step()) == 2


def test_the_position_is_unknown_until_pending_entries_are_and_after_a_snapshot(log: ReplicationLog) -> None:
    bench = Bench(log, Fixed(100))
    bench.add(2)
    bench.acknowledger.forget()
    assert (len(bench.acknowledger), bench.acknowledger.position) == (0, None)
    bench.acknowledger.add(redelivered(log))
    bench.acknowledger.recovered(Position(1, 2))
    assert bench.acknowledger.position == START
    bench.clock.advance_ms(100)
    bench.step()
    assert bench.acknowledger.position == Position(1, 2)


def test_void_entries_are_acknowledged_immediately_and_not_reported(log: ReplicationLog) -> None:
    bench = Bench(log, Fixed(60_000))
    positions = [entry.position for entry in deliver(log, 2)]
    reports = Reports(log._client)
    bench.acknowledger.discard(positions)
    assert bench.step() == []
    assert bench.pending() == 0
    assert [report.acknowledged for report in reports.wait(1)] == [()]


def test_a_report_has_what_was_acknowledged_and_how_many_entries_are_not(log: ReplicationLog) -> None:
    bench = Bench(log, Fixed(100))
    reports = Reports(log._client)
    positions = bench.add(2)
    bench.step()
    bench.clock.advance_ms(100)
    bench.step()
    bench.step()  # nothing changes, so nothing is reported
    found = [(report.replica, report.unacknowledged, report.acknowledged) for report in reports.wait(1)]
    assert found == [("r1", 3, ()), ("r1", 0, tuple(positions))]


def test_the_thread_wakes_for_a_report_before_an_acknowledgement_is_due(log: ReplicationLog) -> None:
    bench = Bench(log, Fixed(60_000))
    bench.step()
    bench.add(1)
    bench.clock.advance_ms(51)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(bench.acknowledger.wait).result(5)
