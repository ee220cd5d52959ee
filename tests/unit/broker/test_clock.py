"""The log's clock: advanced by the monotonic one, and never ahead."""

import pytest

from broker.clock import LogClock
from broker.errors import LogUnreachable


class World:
    """A server and a machine whose wall clock is wrong by an hour, with an answer that takes ``rtt_us``."""

    def __init__(self) -> None:
        self.true_us = 5_000_000_000
        self.monotonic_us = 70_000_000
        self.rtts_us = [400, 100, 900, 300, 200]
        self.asked = 0

    def pass_us(self, span: int) -> None:
        self.true_us += span
        self.monotonic_us += span

    def server_us(self) -> int:
        rtt = self.rtts_us[self.asked % len(self.rtts_us)]
        self.asked += 1
        self.pass_us(rtt // 2)
        answer = self.true_us
        self.pass_us(rtt - rtt // 2)
        return answer

    def clock(self) -> LogClock:
        return LogClock(self.server_us, lambda: self.monotonic_us * 1000, lambda: (self.true_us + 3_600_000_000) * 1000)


def test_after_a_measurement_the_clock_is_late_by_at_most_the_best_round_trip_and_never_early() -> None:
    world = World()
    clock = world.clock()
    clock.measure()
    assert 0 <= world.true_us - clock.now_us() <= 100


def test_time_advances_with_the_monotonic_clock() -> None:
    world = World()
    clock = world.clock()
    clock.measure()
    before = clock.now_us()
    world.pass_us(1234)
    assert clock.now_us() == before + 1234


def test_a_step_of_the_servers_clock_is_followed_at_the_next_measurement() -> None:
    world = World()
    clock = world.clock()
    clock.measure()
    world.true_us -= 3_600_000_000
    clock.measure()
    assert 0 <= world.true_us - clock.now_us() <= 100


def test_slow_answers_do_not_set_the_clock_back() -> None:
    world = World()
    clock = world.clock()
    clock.measure()
    late = world.true_us - clock.now_us()
    world.rtts_us = [9_000]
    clock.measure()
    assert world.true_us - clock.now_us() == late


def test_a_better_answer_moves_the_clock_forward() -> None:
    world = World()
    world.rtts_us = [9_000]
    clock = world.clock()
    clock.measure()
    world.rtts_us = [100]
    clock.measure()
    assert 0 <= world.true_us - clock.now_us() <= 100


def test_a_quick_answer_reveals_a_server_clock_set_back_by_less_than_a_slow_answer_takes() -> None:
    world = World()
    clock = world.clock()
    clock.measure()
    world.true_us -= 5_000
    world.rtts_us = [9_000]
    clock.measure()
    world.rtts_us = [100]
    clock.measure()
    assert 0 <= world.true_us - clock.now_us() <= 100


def test_a_failed_measurement_leaves_the_clock_as_it_was() -> None:
    world = World()
    clock = world.clock()
    clock.measure()
    before = clock.now_us()

    def fail() -> int:
        raise LogUnreachable("gone")

    clock._server_us = fail
    with pytest.raises(LogUnreachable):
        clock.measure()
    assert clock.now_us() == before
