"""The open loop: what is due begins, whatever else is still under way."""

from __future__ import annotations

import threading
import time

import pytest

from nodes.worker.open_loop import OpenLoop


def test_tasks_begin_in_the_order_of_their_times_and_none_before() -> None:
    loop, begun = OpenLoop(4, time.monotonic), []
    start = time.monotonic()
    for number in (3, 1, 2):
        due = start + number / 50
        loop.at(due, lambda due=due, number=number: begun.append((number, time.monotonic() - due)))
    loop.run()
    assert [number for number, _ in begun] == [1, 2, 3]
    assert all(late >= 0 for _, late in begun)
    assert len(loop.late_seconds) == 3


def test_a_task_that_takes_long_holds_up_no_other() -> None:
    loop, other_begun = OpenLoop(2, time.monotonic), threading.Event()
    loop.at(0, lambda: None if other_begun.wait(10) else pytest.fail("the second never began"))
    loop.at(0, other_begun.set)
    loop.run()
    assert other_begun.is_set()


def test_a_task_may_add_others_and_the_agenda_goes_on_until_all_are_done() -> None:
    loop, done = OpenLoop(2, time.monotonic), []

    def count(number: int) -> None:
        done.append(number)
        if number < 5:
            loop.at(time.monotonic() + 0.01, lambda: count(number + 1))

    loop.at(0, lambda: count(1))
    loop.run()
    assert done == [1, 2, 3, 4, 5]


def test_what_a_task_raises_ends_it() -> None:
    loop, later = OpenLoop(1, time.monotonic), []

    def fail() -> None:
        raise ValueError("broken")

    loop.at(0, fail)
    loop.at(time.monotonic() + 60, lambda: later.append(1))
    with pytest.raises(ValueError, match="broken"):
        loop.run()
    assert not later


def test_when_stopped_it_returns_at_once_and_waits_for_nobody() -> None:
    loop, never = OpenLoop(2, time.monotonic), threading.Event()
    loop.at(0, lambda: never.wait(60) and None)
    loop.at(time.monotonic() + 60, never.set)
    threading.Timer(0.05, loop.stop).start()
    began = time.monotonic()
    loop.run()
    assert time.monotonic() - began < 10
    never.set()
