"""What the instrument is for: each shortcut that looks as good gives a result that is wrong."""

import math
import random

import pytest
from typing_extensions import override

from lab.probe import instrument
from lab.probe.certainty import Bounds, Certainty
from lab.probe.instrument import Limits, Run, Shared, Writer
from tests.unit.lab.probe.store import Delay, Node, simulate, store

TIMES = (0.05, 0.1, 0.2, 0.3)
MEAN_SECONDS = 0.1


class ClosedLoop(Writer):
    """Writes again only when every replica has shown the last write."""

    @override
    def step(self) -> float | None:
        if self.writes and any(brackets.keys for brackets in self._shared.replicas):
            return self._shared.now() + 0.001
        self._shared.started = max(self._shared.started, self._shared.now() - len(self.writes) / 10)
        return super().step()


def one_key(_: Shared) -> str:
    return "k0001"


def paused(at: float) -> float:
    """Replay pauses for 3 s, 10 s after the start of the simulation."""
    return 0.003 if not 1010 <= at < 1013 else 1013.003 - at


def arrival() -> Delay:
    source = random.Random(1)
    return lambda _: source.expovariate(1 / MEAN_SECONDS)


def stale(run: Run, at: float) -> Bounds:
    return Certainty([found.window for found in run.replicas[0].brackets]).stale(at)


def is_inside(value: float, at_least: float | None, at_most: float | None) -> bool:
    assert at_least is not None
    assert at_most is not None
    return at_least <= value <= at_most


def of_a_pause() -> Bounds:
    """P(stale 1 s after the write), of which the truth is 2 s of 25."""
    primary, replicas = store(paused)
    return stale(simulate(primary, replicas, Limits(seconds=25.0)), 1.0)


def test_an_open_loop_sees_a_pause() -> None:
    at_least, at_most, low, high = of_a_pause()
    assert is_inside(2 / 25, at_least, at_most)
    assert is_inside(2 / 25, low, high)


def test_a_closed_loop_does_not_see_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrument, "Writer", ClosedLoop)
    at_least, at_most, low, high = of_a_pause()
    assert not is_inside(2 / 25, at_least, at_most)
    assert not is_inside(2 / 25, low, high)


def in_order_of_arrival() -> tuple[Run, Node]:
    primary, replicas = store(arrival())
    return simulate(primary, replicas, Limits(writes_per_second=20.0, seconds=30.0)), replicas[0]


def test_several_keys_are_right_in_order_of_arrival() -> None:
    run, replica = in_order_of_arrival()
    assert all(found.low <= replica.visible_at(found.number) for found in run.replicas[0].brackets)
    assert all((found.high or math.inf) >= replica.visible_at(found.number) for found in run.replicas[0].brackets)
    assert all(is_inside(math.exp(-at / MEAN_SECONDS), *stale(run, at)[2:]) for at in TIMES)


def test_one_key_is_wrong_in_order_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer write of the key that overtakes shows the older one before it has arrived."""
    monkeypatch.setattr(Shared, "free_key", one_key)
    run, replica = in_order_of_arrival()
    assert any((found.high or math.inf) < replica.visible_at(found.number) for found in run.replicas[0].brackets)
    assert not all(is_inside(math.exp(-at / MEAN_SECONDS), *stale(run, at)[2:]) for at in TIMES)
