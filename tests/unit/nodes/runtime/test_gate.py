"""Waiting for a position: wake-ups, limits, and cleanup."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from broker.position import Position
from nodes.http.problem import problem_of
from nodes.runtime.gate import Places, PositionGate, State, TooManyWaiters
from tests.support.until import until


def at(version: int, epoch: int = 1) -> State:
    return State(Position(epoch, version), f"w{version}", version)


def make(max_waiters: int = 1000) -> PositionGate:
    return PositionGate(at(5), max_waiters)


def waiting(gate: PositionGate, threads: ThreadPoolExecutor, *versions: int) -> list[Future[State]]:
    before = gate.waiters
    found = [threads.submit(gate.wait_for, Position(1, version), 30.0) for version in versions]
    until(lambda: gate.waiters == before + len(versions))
    return found


def test_a_position_already_reached_is_answered_at_once() -> None:
    assert make().wait_for(Position(1, 5), 30.0) == at(5)


def test_a_timeout_of_zero_does_not_wait() -> None:
    assert make().wait_for(Position(1, 6), 0) == at(5)


def test_only_the_advance_that_reaches_a_position_wakes_its_waiter() -> None:
    gate = make()
    with ThreadPoolExecutor(8) as threads:
        six, eight, nine = waiting(gate, threads, 6, 8, 9)
        gate.advance(at(6))
        assert six.result(5) == at(6)
        assert gate.waiters == 2
        gate.advance(at(8))
        assert eight.result(5) == at(8)
        assert not nine.done()
        gate.advance(at(20))
        assert nine.result(5) == at(20)
    assert gate.waiters == 0


def test_hundreds_of_waiters_are_all_woken() -> None:
    gate = make()
    with ThreadPoolExecutor(400) as threads:
        found = waiting(gate, threads, *([6] * 400))
        gate.advance(at(6))
        assert all(future.result(10) == at(6) for future in found)


def test_a_later_epoch_reaches_every_position_of_an_earlier_one() -> None:
    gate = make()
    with ThreadPoolExecutor(1) as threads:
        (waiter,) = waiting(gate, threads, 99)
        gate.advance(at(0, epoch=2))
        assert waiter.result(5).position == Position(2, 0)


def test_the_state_never_goes_back_unless_it_is_replaced() -> None:
    gate = make()
    gate.advance(at(4))
    assert gate.state == at(5)
    gate.replace(at(4))
    assert gate.state == at(4)


def test_a_held_request_counts_as_waiting_and_no_position_wakes_it() -> None:
    gate = make(max_waiters=1)
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(gate.hold, 30.0)
        until(lambda: gate.waiters == 1)
        gate.advance(at(9, epoch=9))
        assert not held.done()
        with pytest.raises(TooManyWaiters):
            gate.hold(30.0)
        gate.close()
        held.result(5)
    assert gate.waiters == 0


def test_waiters_that_time_out_leave_nothing_behind() -> None:
    gate = make()
    for version in range(6, 30):
        assert gate.wait_for(Position(1, version), 0.001) == at(5)
    assert gate.waiters == 0
    assert gate._waiting == {}
    gate.advance(at(6))


def test_a_waiter_beyond_the_limit_is_refused_and_can_retry() -> None:
    gate = make(max_waiters=2)
    with ThreadPoolExecutor(2) as threads:
        waiting(gate, threads, 6, 7)
        with pytest.raises(TooManyWaiters) as refused:
            gate.wait_for(Position(1, 6), 30.0)
        problem = problem_of(refused.value)
        assert problem is not None
        assert (problem.status, problem.headers["Retry-After"]) == (503, "1")
        gate.advance(at(7))


def test_a_wake_is_timed_from_the_advance_that_reached_the_position() -> None:
    now, advanced_twice, measured = [10.0], threading.Event(), list[float]()

    def clock() -> float:
        if threading.current_thread() is not threading.main_thread():
            assert advanced_twice.wait(10)
        return now[0]

    gate = PositionGate(at(5), 1000, measured.append, clock)
    with ThreadPoolExecutor(2) as threads:
        found = waiting(gate, threads, 6, 6)
        gate.advance(at(6))
        now[0] = 10.2
        gate.advance(at(7))
        advanced_twice.set()
        for future in found:
            future.result(10)
    assert measured == pytest.approx([0.2, 0.2])


def test_a_waiter_woken_by_the_stop_of_the_node_is_not_timed() -> None:
    measured: list[float] = []
    gate = PositionGate(at(5), 1000, measured.append)
    with ThreadPoolExecutor(1) as threads:
        (waiter,) = waiting(gate, threads, 6)
        gate.close()
        waiter.result(10)
    assert measured == []


def test_closing_wakes_all_waiters_for_good() -> None:
    gate = make()
    with ThreadPoolExecutor(2) as threads:
        found = waiting(gate, threads, 6, 7)
        gate.close()
        assert [future.result(5) for future in found] == [at(5), at(5)]
    assert gate.wait_for(Position(1, 9), 30.0) == at(5)


def test_time_outs_at_the_moment_of_the_wake_lose_no_waiter() -> None:
    """Each waiter wakes the next, so a waiter that times out at that moment must not break the chain."""
    for _ in range(30):
        gate = make()
        with ThreadPoolExecutor(20) as threads:
            timeouts = [0.005 if number % 2 else 30.0 for number in range(20)]
            found = [threads.submit(gate.wait_for, Position(1, 6), timeout) for timeout in timeouts]
            advanced = threading.Timer(0.005, gate.advance, [at(6)])
            advanced.start()
            began = time.monotonic()
            for future in found:
                future.result(10)
            assert time.monotonic() - began < 5
            advanced.join()
        assert gate.waiters == 0


def test_a_place_is_released_whatever_happens() -> None:
    places = Places(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), places.one():
            raise ZeroDivisionError
