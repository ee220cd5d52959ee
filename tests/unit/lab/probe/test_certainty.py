"""Certain bounds of the sample, and confidence bounds of the store: they cover the truth, also in bursts."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from broker.stats import quantile_of_sorted
from lab.probe.certainty import EFFECTIVE_MIN, SHARES, TIMES_SECONDS, Certainty, Window, tau, wilson

Floats = NDArray[np.float64]
Source = Callable[[np.random.Generator, int], Floats]
WRITES, RUNS = 600, 60


def bursts(random: np.random.Generator, count: int, mean: float = 12.5) -> Floats:
    """10 % of the time 500 ms, in bursts of this many writes on average (12.5: 1.25 s at 10 writes/s), else 5 ms."""
    found, late = np.empty(count), random.random() < 0.1
    at = 0
    while at < count:
        length = random.geometric(1 / mean if late else 1 / (9 * mean))
        found[at : at + length] = 0.5 if late else 0.005
        at, late = at + length, not late
    return found * (1 + 0.1 * random.random(count))


def pauses(random: np.random.Generator, count: int) -> Floats:
    """Replay pauses for 3 s of 25 s on average; a write sees what is left of the pause."""
    sent = np.arange(count) / 10
    found = np.full(count, 0.003)
    at = random.uniform(-25, 0)
    while at < sent[-1]:
        during = (sent >= at) & (sent < at + 3)
        found[during] = at + 3 - sent[during]
        at += 3 + random.exponential(22)
    return found


SOURCES: dict[str, Source] = {
    "constant": lambda random, count: 0.2 + random.exponential(0.0005, count),
    "lognormal": lambda random, count: random.lognormal(np.log(0.05), 0.8, count),
    "bursts": bursts,
    "pauses": pauses,
}


def bracketed(random: np.random.Generator, windows: Floats) -> list[Window]:
    """Reading at 5 % of the age, and at least every millisecond."""
    gap = np.maximum(0.001, 0.05 * windows)
    low = windows - random.random(len(windows)) * gap
    return [(float(one), float(other)) for one, other in zip(low, low + gap, strict=True)]


@pytest.mark.parametrize("name", SOURCES)
def test_the_confidence_bounds_cover_the_truth(name: str) -> None:
    source = SOURCES[name]
    store = np.sort(source(np.random.default_rng(1), 400_000))
    covered_stale = np.zeros(len(TIMES_SECONDS))
    covered_quantiles = np.zeros(len(SHARES))
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        found = Certainty(bracketed(random, source(random, WRITES)))
        for index, (at, bounds) in enumerate(zip(TIMES_SECONDS, found.curve(), strict=True)):
            low, high = bounds[2:]
            assert low is not None
            assert high is not None
            covered_stale[index] += low <= float((store > at).mean()) <= high
        for index, share in enumerate(SHARES):
            low, high = found.quantile(share)[2:]
            assert low is not None
            covered_quantiles[index] += low <= quantile_of_sorted(store, share) <= (high or np.inf)
    assert (covered_stale >= 0.9 * RUNS).all()
    assert (covered_quantiles >= 0.9 * RUNS).all()


def test_the_confidence_bounds_cover_the_truth_in_long_bursts_if_the_run_saw_one() -> None:
    """With 25 writes a burst, 1 run of 15 sees none, and nothing in it says that there are any."""
    covered = []
    for seed in range(2 * RUNS):
        random = np.random.default_rng(seed)
        windows = bursts(random, WRITES, 25)
        low, high = Certainty(bracketed(random, windows)).stale(0.1)[2:]
        assert low is not None
        assert high is not None
        if windows.max() > 0.1:
            covered.append(low <= 0.1 <= high)
    assert len(covered) > 1.8 * RUNS
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("name", SOURCES)
def test_the_certain_bounds_always_hold_for_the_writes_of_the_run(name: str) -> None:
    random = np.random.default_rng(2)
    windows = SOURCES[name](random, WRITES)
    found = Certainty(bracketed(random, windows))
    for at in TIMES_SECONDS:
        at_least, at_most, low, high = found.stale(at)
        assert at_least is not None
        assert at_most is not None
        assert at_least <= float((windows > at).mean()) <= at_most
        assert low is not None
        assert high is not None
        assert low <= at_least
        assert at_most <= high


def test_bursts_are_worth_few_writes_and_independent_ones_all() -> None:
    random = np.random.default_rng(3)
    lognormal = Certainty(bracketed(random, SOURCES["lognormal"](random, WRITES)))
    assert lognormal.effective > 200
    paused = np.full(250, 0.003)
    paused[100:130] = np.arange(30, 0, -1) / 10
    found = Certainty(bracketed(random, paused))
    assert found.effective < EFFECTIVE_MIN
    at_least, at_most, low, high = found.stale(1.0)
    assert at_least is not None
    assert low is not None
    assert high is not None
    assert (at_least, at_most) == (pytest.approx(0.08, abs=0.005), pytest.approx(0.08, abs=0.005))
    assert low < 0.03
    assert high > 0.2
    beyond = found.stale(10.0)
    assert beyond[:3] == (0.0, 0.0, 0.0)
    assert beyond.high is not None
    assert beyond.high > 0.1
    highs = [bounds.high for bounds in found.curve() if bounds.high is not None]
    lows = [bounds.low for bounds in found.curve() if bounds.low is not None]
    assert len(highs) == len(lows) == len(TIMES_SECONDS)
    assert highs == sorted(highs, reverse=True)
    assert lows == sorted(lows, reverse=True)
    assert highs[-1] < beyond.high


def test_the_upper_end_of_a_high_quantile_needs_enough_writes() -> None:
    random = np.random.default_rng(4)
    windows = bracketed(random, random.random(WRITES))
    assert Certainty(windows).quantile(0.99).high is not None
    assert Certainty(windows[:300]).quantile(0.99).high is None
    assert Certainty(windows[:300]).quantile(0.5).high is not None


def test_censored_writes_make_upper_ends_unknown_and_count_as_stale() -> None:
    windows: list[Window] = [(0.1, 0.2)] * 90 + [(5.0, None)] * 10
    found = Certainty(windows)
    assert found.quantile(0.5)[:2] == (0.1, 0.2)
    assert found.quantile(0.95)[:2] == (5.0, None)
    assert found.stale(10.0)[:2] == (0.0, 0.1)


def test_a_window_that_ended_before_the_acknowledgement_is_zero() -> None:
    found = Certainty([(-0.2, -0.1)] * 600)
    assert found.quantile(0.5)[:2] == (0.0, 0.0)
    assert found.stale(0.0)[:2] == (0.0, 0.0)


def test_without_writes_nothing_is_known() -> None:
    found = Certainty([])
    assert set(found.stale(0.1) + found.quantile(0.5)) == {None}
    assert found.effective == 0


def test_one_write_says_hardly_anything() -> None:
    low, high = Certainty([(0.1, 0.2)]).stale(1.0)[2:]
    assert (low, high) == (0.0, pytest.approx(0.793, abs=0.001))


def test_wilson_is_as_published() -> None:
    assert wilson(0.1, 10) == (pytest.approx(0.0179, abs=1e-4), pytest.approx(0.4042, abs=1e-4))
    assert wilson(0, 500) == (0, pytest.approx(0.0076, abs=1e-4))
    assert wilson(1, 500)[1] == 1


def test_tau_of_a_constant_series_is_unknown() -> None:
    assert tau(np.zeros(100, dtype=bool)) is None
    assert tau(np.zeros(0, dtype=bool)) is None
    assert tau(np.random.default_rng(2).random(600) < 0.1) == 1.0


@given(st.lists(st.tuples(st.floats(-1, 20), st.none() | st.floats(0, 5)), max_size=50))
def test_bounds_are_ordered_whatever_the_windows(given_windows: list[tuple[float, float | None]]) -> None:
    found = Certainty([(low, None if width is None else low + width) for low, width in given_windows])
    for bounds in [*found.curve(), *map(found.quantile, SHARES)]:
        known = [one for one in (bounds.low, bounds.at_least, bounds.at_most, bounds.high) if one is not None]
        assert known == sorted(known)
