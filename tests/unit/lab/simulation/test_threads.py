"""Threads, locks and clocks of the simulated world, used as those of the standard library."""

import random
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from queue import LifoQueue
from random import Random

import pytest

from lab.simulation.replaced import RealWorld, installed
from lab.simulation.scheduler import START_NS, Process, Scheduler
from nodes.replica.history import Recent
from nodes.runtime.gate import EMPTY_STATE, PositionGate


@contextmanager
def world(seed: int = 14) -> Iterator[Scheduler]:
    scheduler = Scheduler(Random(seed))
    with installed(scheduler, Random(seed)):
        yield scheduler


def run(scheduler: Scheduler, *calls: Callable[[], object], seconds: float = 60) -> None:
    for call in calls:
        threading.Thread(target=call).start()
    scheduler.run(seconds)


def test_every_clock_shows_the_virtual_time_and_sleeping_advances_it() -> None:
    seen: list[float] = []

    def sleep() -> None:
        time.sleep(3600)
        seen.extend([time.monotonic(), time.perf_counter(), time.monotonic_ns() / 1e9, time.time() - START_NS / 1e9])

    with world() as scheduler:
        run(scheduler, sleep, seconds=7200)
    assert seen == [3600] * 4


def test_the_wall_clock_is_that_of_the_machine() -> None:
    seen: list[float] = []
    with world() as scheduler:
        scheduler.wall_offsets_ns["node"] = 90 * 10**9
        scheduler.spawn(lambda: seen.append(time.time_ns() - START_NS), Process("node"))
        scheduler.run(1)
    assert seen == [90 * 10**9]


def test_randomness_comes_from_the_seed_and_the_real_state_is_restored() -> None:
    def drawn(seed: int) -> tuple[object, ...]:
        with world(seed):
            return random.random(), uuid.uuid4(), secrets.token_hex(4)

    random.seed(7)
    state = random.getstate()
    assert drawn(1) == drawn(1) != drawn(2)
    assert random.getstate() == state


def test_a_lock_is_held_by_one_and_passed_on() -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                inside[0] -= 1

    with world() as scheduler:
        lock = threading.Lock()
        run(scheduler, work, work, work)
        assert scheduler.now_seconds() == 60
    assert most == [1]


def test_waiting_for_a_lock_ends_with_the_time_out() -> None:
    found: list[object] = []

    def wait() -> None:
        found.extend([lock.acquire(timeout=2), time.monotonic(), lock.acquire(blocking=False)])

    with world() as scheduler:
        lock = threading.Lock()
        lock.acquire()
        run(scheduler, wait)
    assert found == [False, pytest.approx(2), False]


@pytest.mark.parametrize(
    ("made", "switches"),
    [
        (lambda: PositionGate(EMPTY_STATE, 1).close, 2),  # a node's lock, before it is taken
        (lambda: Recent(1).close, 3),  # a node's condition, also after its block
        (lambda: LifoQueue[object]().qsize, 1),  # a library's
    ],
)
def test_others_can_run_around_the_blocks_of_nodes(made: Callable[[], Callable[[], object]], switches: int) -> None:
    scheduler = Scheduler(Random(14), gives_way=1)
    with installed(scheduler, Random(14)):
        run(scheduler, made())
    assert scheduler.switches == switches


def test_a_reentrant_lock_can_be_taken_again_by_its_owner_only() -> None:
    found: list[object] = []

    def own() -> None:
        with lock, lock:
            time.sleep(5)

    def other() -> None:
        time.sleep(1)
        found.append(lock.acquire(timeout=1))
        with lock:
            found.append(time.monotonic())

    with world() as scheduler:
        lock = threading.RLock()
        run(scheduler, own, other)
    assert found == [False, pytest.approx(5)]


def test_a_condition_wakes_those_that_wait_for_it() -> None:
    items: list[int] = []
    found: list[tuple[bool, float]] = []

    def wait() -> None:
        with condition:
            found.append((condition.wait_for(lambda: items, 10), time.monotonic()))

    def add() -> None:
        time.sleep(2)
        with condition:
            items.append(1)
            condition.notify_all()

    with world() as scheduler:
        condition = threading.Condition()
        run(scheduler, wait, wait, add)
    assert [bool(woken) for woken, _ in found] == [True, True]
    assert [at for _, at in found] == pytest.approx([2, 2])


def test_an_event_and_a_semaphore_wait_no_longer_than_they_have_to() -> None:
    found: list[object] = []

    def wait() -> None:
        found.extend([event.wait(1), event.wait(10), time.monotonic()])
        found.extend([room.acquire(), room.acquire(blocking=False), room.acquire(timeout=1)])

    with world() as scheduler:
        event, room = threading.Event(), threading.Semaphore(1)
        run(scheduler, wait, lambda: (time.sleep(4), event.set()))
    assert found == [False, True, pytest.approx(4), True, False, False]


def test_asking_an_unset_event_again_and_again_without_waiting_lets_time_pass() -> None:
    def ask() -> None:
        while time.monotonic() < 0.001:
            event.wait(0)

    with world() as scheduler:
        event = threading.Event()
        run(scheduler, ask, seconds=1)
        assert scheduler.now_seconds() == 1


def test_a_timer_fires_once_and_not_after_it_was_cancelled() -> None:
    fired: list[float] = []
    with world() as scheduler:
        threading.Timer(2, lambda: fired.append(time.monotonic())).start()
        cancelled = threading.Timer(3, lambda: fired.append(0))
        cancelled.start()
        cancelled.cancel()
        scheduler.run(60)
    assert fired == [2]


def test_an_executor_runs_as_many_calls_at_once_as_it_has_workers() -> None:
    done: list[float] = []

    def ask() -> None:
        asked = [executor.submit(time.sleep, 1) for _ in range(4)]
        for future in futures.as_completed(asked, 10):
            future.result()
            done.append(time.monotonic())

    with world() as scheduler:
        executor = futures.ThreadPoolExecutor(2)
        run(scheduler, ask)
    assert done == pytest.approx([1, 1, 2, 2])


def test_a_future_that_is_not_done_in_time_raises() -> None:
    found: list[type[BaseException]] = []

    def ask() -> None:
        with pytest.raises(TimeoutError) as raised:
            futures.ThreadPoolExecutor(1).submit(time.sleep, 5).result(1)
        found.append(raised.type)

    with world() as scheduler:
        run(scheduler, ask)
    assert found == [TimeoutError]


def test_the_standard_librarys_queues_work_in_the_world() -> None:
    found: list[object] = []
    with world() as scheduler:
        queue: LifoQueue[int] = LifoQueue()
        run(scheduler, lambda: found.append((queue.get(), time.monotonic())), lambda: (time.sleep(3), queue.put(1)))
    assert found == [(1, pytest.approx(3))]


def test_sockets_are_refused() -> None:
    with world():
        for use in (socket.socket, lambda: socket.create_connection(("127.0.0.1", 1))):
            with pytest.raises(RealWorld):
                use()


def test_everything_is_real_again_afterwards() -> None:
    before = time.monotonic, threading.Lock, futures.ThreadPoolExecutor, socket.socket, uuid.uuid4
    with world():
        pass
    assert (time.monotonic, threading.Lock, futures.ThreadPoolExecutor, socket.socket, uuid.uuid4) == before
