"""The predicted curve against brute force."""

import numpy as np
import pytest

from broker.delay.models import DelayModel, Exponential, Fixed, Order, Uniform
from broker.delay.prediction import Replicated, predict
from tests.support.delays import CONTINUOUS, MODELS
from tests.support.kolmogorov import p_value

T_MS = np.linspace(0, 3000, 31)


@pytest.mark.parametrize("model", CONTINUOUS, ids=lambda model: model.kind)
def test_samples_are_distributed_as_the_model_defines(model: DelayModel) -> None:
    draws = model.sample(np.random.default_rng(1), (10_000,))
    assert p_value(list(draws), model.cdf) > 0.01


@pytest.mark.parametrize("rate", [1, 20])
@pytest.mark.parametrize("model", CONTINUOUS, ids=lambda model: model.kind)
def test_in_log_order_the_effective_delay_is_a_running_maximum(model: DelayModel, rate: float) -> None:
    random = np.random.default_rng(2)
    count = 400_000
    published = np.cumsum(random.exponential(1000 / rate, count))
    effective = np.maximum.accumulate(published + model.sample(random, (count,))) - published
    simulated = np.array([np.mean(effective <= t) for t in T_MS])
    predicted = [Replicated(model, "log", rate).fresh(t) for t in T_MS.tolist()]
    assert np.max(np.abs(simulated - predicted)) < 0.01


def test_in_arrival_order_the_delay_is_that_of_the_model_at_any_rate() -> None:
    model = Exponential(500)
    for rate in (0, 1, 100):
        assert [Replicated(model, "arrival", rate).fresh(t) for t in T_MS] == pytest.approx(
            [model.cdf(t) for t in T_MS]
        )


@pytest.mark.parametrize("order", ["log", "arrival"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_a_read_shows_one_of_the_newest_writes_as_often_as_by_brute_force(model: DelayModel, order: Order) -> None:
    random = np.random.default_rng(3)
    count, rate = 200_000, 4.0
    published = np.cumsum(random.exponential(1000 / rate, count))
    applied = published + model.sample(random, (count,))
    if order == "log":
        applied = np.maximum.accumulate(applied)
    reads = np.sort(random.uniform(published[1000], published[-1000], count))
    newest = np.searchsorted(published, reads, side="right") - 1
    for k in (1, 2, 5):
        shown = np.any([applied[newest - back] <= reads for back in range(k)], axis=0)
        assert Replicated(model, order, rate).shows_newest(k) == pytest.approx(float(np.mean(shown)), abs=0.01)


def test_without_writes_every_read_shows_the_newest() -> None:
    assert Replicated(Exponential(500), "log", 0).shows_newest(1) == 1


def test_fixed_delays_do_not_hold_each_other_back() -> None:
    curve = predict(
        [Replicated(Fixed(500), rate=100), Replicated(Fixed(1500), rate=100)], np.array([0, 499, 500, 1500.0])
    )
    assert list(curve.stale) == [1, 1, 0.5, 0]
    assert list(curve.converged) == [0, 0, 0, 1]


def test_a_write_has_converged_when_each_replica_has_it() -> None:
    one, other = Exponential(500), Uniform(0, 1000)
    curve = predict([Replicated(one, "arrival"), Replicated(other, "arrival")], T_MS)
    assert curve.converged == pytest.approx([one.cdf(t) * other.cdf(t) for t in T_MS])
    assert curve.stale == pytest.approx([1 - (one.cdf(t) + other.cdf(t)) / 2 for t in T_MS])
