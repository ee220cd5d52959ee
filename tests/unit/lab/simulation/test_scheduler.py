"""The virtual clock and its tasks."""

from collections.abc import Callable
from random import Random

import pytest

from lab.simulation.scheduler import Mailbox, Process, Scheduler, Stalled


def test_time_passes_only_by_timers(scheduler: Scheduler) -> None:
    seen: list[float] = []
    scheduler.after(3600, lambda: seen.append(scheduler.now_seconds()))
    scheduler.after(0.5, lambda: seen.append(scheduler.now_seconds()))
    scheduler.run(7200)
    assert seen == [0.5, 3600.0]
    assert scheduler.now_seconds() == 7200


def test_a_cancelled_timer_is_not_called(scheduler: Scheduler) -> None:
    scheduler.after(1, lambda: pytest.fail("it was cancelled")).cancel()
    scheduler.run(2)


def test_even_the_shortest_wait_lets_time_pass(scheduler: Scheduler) -> None:
    def wait() -> None:
        scheduler.wait(1e-12)

    scheduler.spawn(wait)
    scheduler.run(1)
    assert scheduler.switches == 2


def test_a_task_that_is_woken_gets_the_value_and_one_whose_time_is_up_none(scheduler: Scheduler) -> None:
    found: list[tuple[object, float]] = []

    def wait() -> None:
        found.append((scheduler.wait(10), scheduler.now_seconds()))
        found.append((scheduler.wait(10), scheduler.now_seconds()))

    task = scheduler.spawn(wait)
    scheduler.after(3, lambda: scheduler.wake(task, "woken"))
    scheduler.run(60)
    assert found == [("woken", 3.0), (None, 13.0)]


def test_which_of_the_runnable_tasks_runs_next_is_drawn_and_the_same_for_the_same_seed() -> None:
    def order(seed: int) -> list[int]:
        scheduler, seen = Scheduler(Random(seed)), list[int]()
        for number in range(8):
            scheduler.spawn(lambda number=number: seen.append(number))  # type: ignore[misc]
        scheduler.run(1)
        return seen

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(20)}) > 10


def test_a_task_that_could_go_on_lets_others_run_now_and_then_for_up_to_20_ms() -> None:
    def waits(gives_way: float) -> list[float]:
        scheduler, seen = Scheduler(Random(14), gives_way), list[float]()

        def work() -> None:
            for _ in range(1000):
                before = scheduler.now_seconds()
                scheduler.give_way()
                seen.append(scheduler.now_seconds() - before)

        scheduler.spawn(work)
        scheduler.run(60)
        return seen

    assert len(waits(0.0)) == 1000
    assert not any(waits(0.0))
    found = [seconds for seconds in waits(0.5) if seconds]
    assert 0.005 < sum(found) / len(found) < 0.015
    assert max(found) <= 0.02
    assert 60 < len(found) < 140  # one in ten


def test_killed_tasks_unwind_and_none_of_their_waits_returns(scheduler: Scheduler) -> None:
    process, seen = Process("node"), list[str]()

    def work() -> None:
        try:
            scheduler.wait(10)
            seen.append("went on")
        finally:
            seen.append("unwound")
            scheduler.sleep(1)
            seen.append("slept")

    scheduler.spawn(work, process)
    scheduler.run(1)
    scheduler.kill(process)
    scheduler.run(60)
    assert seen == ["unwound"]
    assert not process.tasks


def test_a_process_that_kills_itself_ends_at_its_next_wait(scheduler: Scheduler) -> None:
    process, seen = Process("node"), list[str]()

    def work() -> None:
        scheduler.kill(process)
        seen.append("still runs")
        scheduler.sleep(1)
        seen.append("slept")

    scheduler.spawn(work, process)
    scheduler.run(60)
    assert seen == ["still runs"]


def test_a_frozen_process_continues_when_it_is_thawed(scheduler: Scheduler) -> None:
    process, seen = Process("node"), list[float]()

    def work() -> None:
        while True:
            scheduler.sleep(1)
            seen.append(scheduler.now_seconds())

    scheduler.spawn(work, process)
    scheduler.after(1.5, lambda: scheduler.freeze(process))
    scheduler.after(10, lambda: scheduler.thaw(process))
    scheduler.run(11.5)
    assert seen == [1.0, 10.0, 11.0]


@pytest.mark.parametrize("wait", [lambda s: s.wait(), lambda s: s.sleep(1)], ids=["wait", "sleep"])
def test_the_world_itself_cannot_wait(scheduler: Scheduler, wait: Callable[[Scheduler], None]) -> None:
    with pytest.raises(Stalled):
        wait(scheduler)


def test_an_error_in_a_task_ends_the_run(scheduler: Scheduler) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    scheduler.spawn(fail)
    with pytest.raises(ZeroDivisionError):
        scheduler.run(1)


def test_what_comes_too_late_for_a_task_does_not_wake_it_elsewhere(scheduler: Scheduler) -> None:
    mailbox: Mailbox[str] = Mailbox(scheduler)
    found: list[object] = []

    def work() -> None:
        found.append(mailbox.take(1))
        scheduler.sleep(10)
        found.append(scheduler.now_seconds())
        found.append(mailbox.take(1))

    scheduler.spawn(work)
    scheduler.after(5, lambda: mailbox.put("late"))
    scheduler.run(60)
    assert found == [None, 11.0, "late"]
