"""The open loop: tasks start when they are due, whatever else is running."""

import threading
import time

import pytest

from nodes.worker.open_loop import OpenLoop


def test_tasks_start_in_the_order_of_their_times_and_none_early() -> None:
    loop, started = OpenLoop(4, time.monotonic), []
    start = time.monotonic()
    for number in (3, 1, 2):
        due = start + number / 50
        loop.at(due, lambda due=due, number=number: started.append((number, time.monotonic() - due)))
    loop.run()
    assert [number for number, _ in started] == [1, 2, 3]
    assert all(late >= 0 for _, late in started)
    assert len(loop.late_seconds) == 3


def test_a_slow_task_delays_no_other() -> None:
    loop, other_started = OpenLoop(2, time.monotonic), threading.Event()
    loop.at(0, lambda: None if other_started.wait(10) else pytest.fail("the second never started"))
    loop.at(0, other_started.set)
    loop.run()
    assert other_started.is_set()


def test_a_task_can_add_others_and_the_loop_runs_until_all_are_done() -> None:
    loop, done = OpenLoop(2, time.monotonic), []

    def count(number: int) -> None:
        done.append(number)
        if number < 5:
            loop.at(time.monotonic() + 0.01, lambda: count(number + 1))

    loop.at(0, lambda: count(1))
    loop.run()
    assert done == [1, 2, 3, 4, 5]


def test_an_exception_in_a_task_ends_the_loop() -> None:
    loop, later = OpenLoop(1, time.monotonic), []

    def fail() -> None:
        raise ValueError("broken")

    loop.at(0, fail)
    loop.at(time.monotonic() + 60, lambda: later.append(1))
    with pytest.raises(ValueError, match="broken"):
        loop.run()
    assert not later


def test_a_stopped_loop_returns_immediately_without_waiting() -> None:
    loop, never = OpenLoop(2, time.monotonic), threading.Event()
    loop.at(0, lambda: never.wait(60) and None)
    loop.at(time.monotonic() + 60, never.set)
    threading.Timer(0.05, loop.stop).start()
    started = time.monotonic()
    loop.run()
    assert time.monotonic() - started < 10
    never.set()
