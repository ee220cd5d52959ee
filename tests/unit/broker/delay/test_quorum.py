"""WARS against its published figures, quantiles of many more trials, and closed forms."""

import math
import time
from dataclasses import replace

import pytest

from broker.delay.compound import Mixture
from broker.delay.models import Exponential, Fixed, Order, Pareto
from broker.delay.prediction import Replicated
from broker.delay.quorum import Outcome, Quorum, Ways, simulate
from broker.stats import quantile_of_sorted

pytestmark = pytest.mark.xdist_group("wars")  # one process simulates for all of them
TRIALS = 500_000
TRIALS_TAIL = 1_000_000  # the 99.9 % is far out in a tail here


def mixed(share: float, scale_ms: float, alpha: float, rate: float) -> Mixture:
    return Mixture(((share, Pareto(scale_ms, alpha)), (1 - share, Exponential(1 / rate))))


SSD_WAY = mixed(0.9122, 0.235, 10, 1.66)
DISK_WRITE = mixed(0.38, 1.05, 1.51, 0.183)
YMMR_WAY = mixed(0.982, 1.5, 3.8, 0.0217)
FITS = {
    "SSD": Ways(SSD_WAY, SSD_WAY, SSD_WAY, SSD_WAY),
    "DISK": Ways(DISK_WRITE, SSD_WAY, SSD_WAY, SSD_WAY),
    "YMMR": Ways(mixed(0.939, 3, 3.5, 0.0028), YMMR_WAY, YMMR_WAY, YMMR_WAY),
    "WAN": Ways(DISK_WRITE, SSD_WAY, SSD_WAY, SSD_WAY),
}
REMOTE_MS = {"WAN": 75}
# 99.9 % read and write latency in ms, by R and W (Bailis et al., table 4).
LATENCIES = {
    "SSD": {(1, 1): (0.66, 0.66), (1, 2): (0.66, 1.63), (2, 1): (1.63, 0.65), (2, 2): (1.62, 1.64)},
    "DISK": {(1, 1): (0.66, 10.99), (1, 2): (0.65, 20.97), (2, 1): (1.63, 10.9), (2, 2): (1.64, 20.96)},
    "YMMR": {(1, 1): (5.58, 10.83), (1, 2): (5.61, 427.12), (2, 1): (32.6, 10.73), (2, 2): (33.18, 428.11)},
    "WAN": {(1, 1): (3.4, 55.12), (1, 2): (3.4, 167.64), (2, 1): (151.3, 56.36), (2, 2): (151.31, 167.72)},
}
AT_ONCE = {"SSD": 0.974, "DISK": 0.439, "YMMR": 0.893, "WAN": 0.33}
# When 99.9 % of reads are consistent, by 40 million trials: the published ones are first crossings of a noisy estimate.
WITHIN = {("SSD", 1, 1): 1.975, ("DISK", 1, 1): 52.2, ("DISK", 2, 1): 14.15, ("YMMR", 1, 1): 1461, ("WAN", 1, 1): 116.1}


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, int, int], Outcome]:
    began = time.perf_counter()
    cases = [(name, r, w) for name in FITS for r, w in ((1, 1), (2, 2))] + [("DISK", 2, 1)]
    found = {
        (name, r, w): simulate(
            Quorum([FITS[name]] * 3, r, w, remote_ms=REMOTE_MS.get(name, 0.0)),
            trials=TRIALS_TAIL if name in {"WAN", "YMMR"} else TRIALS,
            seed=5,
        )
        for name, r, w in cases
    }
    print(f"\n{len(found)} simulations of {TRIALS:,} trials or more in {time.perf_counter() - began:.1f} s")
    return found


@pytest.mark.parametrize("name", FITS)
def test_latencies_match_the_published_ones(name: str, outcomes: dict[tuple[str, int, int], Outcome]) -> None:
    for (r, w), (read_ms, write_ms) in LATENCIES[name].items():
        # A read's latency depends on R alone, and a write's on W.
        reads = quantile_of_sorted(outcomes[name, r, r].read_latency, 0.999)
        writes = quantile_of_sorted(outcomes[name, w, w].write_latency, 0.999)
        print(f"\n{name} R={r} W={w}: {reads:.2f} / {writes:.2f} ms, published {read_ms} / {write_ms}")
        assert reads == pytest.approx(read_ms, rel=0.03)
        assert writes == pytest.approx(write_ms, rel=0.03)


@pytest.mark.parametrize("name", FITS)
def test_an_immediate_read_is_as_consistent_as_published(
    name: str, outcomes: dict[tuple[str, int, int], Outcome]
) -> None:
    found = outcomes[name, 1, 1].consistent(0)
    print(f"\n{name}: {found:.3f}, published {AT_ONCE[name]}")
    assert found == pytest.approx(AT_ONCE[name], abs=0.015)


@pytest.mark.parametrize(("case", "within_ms"), WITHIN.items(), ids=str)
def test_the_time_until_nearly_all_reads_are_consistent(
    case: tuple[str, int, int], within_ms: float, outcomes: dict[tuple[str, int, int], Outcome]
) -> None:
    found = outcomes[case].within(0.999)
    print(f"\n{case}: {found:.3f} ms, by 40 million trials {within_ms}")
    assert found == pytest.approx(within_ms, rel=0.03)


@pytest.mark.parametrize("asks_all", [True, False])
def test_overlapping_quorums_are_always_consistent(asks_all: bool) -> None:
    found = simulate(Quorum([FITS["DISK"]] * 3, r=2, w=2, rate=20, asks_all=asks_all), trials=10_000)
    assert found.consistent(0) == found.shows_newest(1) == 1


@pytest.mark.parametrize(("r", "w"), [(0, 1), (1, 4), (4, 1)])
def test_a_quorum_lies_between_1_and_n(r: int, w: int) -> None:
    with pytest.raises(ValueError, match="between 1 and N = 3"):
        Quorum([FITS["SSD"]] * 3, r, w)


NOISE = 0.003
MEAN_MS = 100.0
EXPONENTIAL = Ways(Exponential(MEAN_MS), Fixed(0), Fixed(0))


@pytest.mark.parametrize(("r", "w"), [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("asks_all", [True, False])
def test_staleness_with_exponential_writes_is_the_closed_form(r: int, w: int, asks_all: bool) -> None:
    """The read must miss the W replicas that have the write; the others' remaining delays have no memory."""
    found = simulate(Quorum([EXPONENTIAL] * 3, r, w, asks_all=asks_all), trials=TRIALS)
    missed = math.comb(3 - w, r) / math.comb(3, r)
    for t_ms in (0.0, 30.0, 100.0, 250.0):
        assert 1 - found.consistent(t_ms) == pytest.approx(missed * math.exp(-r * t_ms / MEAN_MS), abs=NOISE)


def test_a_delay_of_the_read_gives_the_write_more_time() -> None:
    found = simulate(Quorum([replace(EXPONENTIAL, read=Fixed(50))] * 3, r=1, w=1, asks_all=False), trials=TRIALS)
    assert 1 - found.consistent(20) == pytest.approx(2 / 3 * math.exp(-70 / MEAN_MS), abs=NOISE)
    assert found.read_latency[0] == found.read_latency[-1] == 50


def test_a_read_of_random_replicas_waits_for_each_of_them() -> None:
    ways = [replace(EXPONENTIAL, read=Fixed(ms)) for ms in (1, 2, 3)]
    found = simulate(Quorum(ways, r=2, w=1, asks_all=False), trials=TRIALS)
    assert {ms: (found.read_latency == ms).mean() for ms in (2.0, 3.0)} == {
        2.0: pytest.approx(1 / 3, abs=NOISE), 3.0: pytest.approx(2 / 3, abs=NOISE)
    }  # fmt: skip
    fastest = simulate(Quorum(ways, r=2, w=1), trials=1000)
    assert set(fastest.read_latency) == {2.0}


@pytest.mark.parametrize("rate", [5.0, 40.0])
def test_in_log_order_delays_are_running_maxima(rate: float) -> None:
    model = Exponential(MEAN_MS)
    found = simulate(Quorum([replace(EXPONENTIAL, order="log")], r=1, w=1, rate=rate), trials=TRIALS)
    predicted = Replicated(model, "log", rate)
    for t_ms in (50.0, 150.0, 300.0, 500.0):
        assert (found.write_latency <= t_ms).mean() == pytest.approx(predicted.fresh(t_ms), abs=NOISE)


def test_in_log_order_acknowledgements_are_running_maxima_too() -> None:
    ways = Ways(Fixed(10), Exponential(MEAN_MS), Fixed(0), order="log")
    found = simulate(Quorum([ways], r=1, w=1, rate=40.0), trials=TRIALS)
    predicted = Replicated(Exponential(MEAN_MS), "log", 40.0)
    for t_ms in (50.0, 150.0, 300.0):
        assert (found.write_latency <= t_ms + 10).mean() == pytest.approx(predicted.fresh(t_ms), abs=NOISE)


@pytest.mark.parametrize("order", ["log", "arrival"])
def test_k_staleness_is_that_of_the_prediction_for_one_replica(order: Order) -> None:
    """The first replica has and acknowledges every write at once, so the second alone is stale."""
    ways = [Ways(Fixed(0), Fixed(0), Fixed(0)), replace(EXPONENTIAL, order=order)]
    found = simulate(Quorum(ways, r=1, w=1, rate=20.0, asks_all=False), trials=TRIALS)
    second = Replicated(Exponential(MEAN_MS), order, 20.0)
    for k in (1, 2, 3, 5):
        assert found.shows_newest(k) == pytest.approx((1 + second.shows_newest(k)) / 2, abs=NOISE)


def test_figures_differ_by_less_than_the_noise_between_seeds() -> None:
    ways = Ways(Exponential(MEAN_MS), Exponential(MEAN_MS / 2), Fixed(0), order="log")
    quorum = Quorum([ways] * 3, r=1, w=1, rate=30.0, asks_all=False)
    first, second = (simulate(quorum, trials=TRIALS, seed=seed) for seed in (1, 2))
    for t_ms in (0.0, 50.0, 200.0):
        assert first.consistent(t_ms) == pytest.approx(second.consistent(t_ms), abs=NOISE)
    assert first.shows_newest(2) == pytest.approx(second.shows_newest(2), abs=NOISE)
    for share in (0.5, 0.95, 0.99):
        of_first, of_second = (quantile_of_sorted(found.write_latency, share) for found in (first, second))
        assert of_first == pytest.approx(of_second, rel=0.02)
