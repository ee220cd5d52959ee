"""Delay models: parsing, and the distribution of their draws."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.delay.compound import Trace
from broker.delay.line import Schedule, uniform
from broker.delay.models import DELAY_MS_MAX, DelayModel, Exponential, Fixed, Lognormal, Pareto, from_json
from broker.position import Position
from broker.registry import Settings
from tests.support.delays import CONTINUOUS, MODELS
from tests.support.kolmogorov import p_value

DOCUMENT = Path(__file__).resolve().parents[4] / "docs/staleness.md"


def by_kind(model: DelayModel) -> str:
    return model.kind


def test_every_kind_of_model_is_tested_and_documented() -> None:
    assert {model.kind for model in MODELS} == set(DelayModel.kinds)
    assert set(re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)) >= set(
        DelayModel.kinds
    )


@pytest.mark.parametrize("model", MODELS, ids=by_kind)
def test_no_draw_is_shorter_than_the_least_delay(model: DelayModel) -> None:
    draws = [model.draw_ms(share / 1000) for share in range(1000)]
    assert 0 <= model.least_ms <= min(draws) + 1e-9


@pytest.mark.parametrize("model", MODELS, ids=by_kind)
def test_written_text_can_be_read_back(model: DelayModel) -> None:
    assert from_json(model.as_json()) == model
    settings = Settings(model, model, "arrival", 7, model)
    assert Settings.from_text(settings.as_text()) == settings


@pytest.mark.parametrize("model", CONTINUOUS, ids=by_kind)
def test_draws_are_distributed_as_the_model_defines(model: DelayModel) -> None:
    schedule = Schedule(model, seed=1, replica="r")
    draws = [schedule.delay_us(Position(1, version)) / 1000 for version in range(1, 10_001)]
    found = p_value(draws, model.cdf)
    print(f"\n{model.kind}: p = {found:.2f}")
    assert found > 0.01
    assert p_value([draw * 1.05 for draw in draws], model.cdf) < 0.01, "the test can tell"


@pytest.mark.parametrize("model", CONTINUOUS, ids=by_kind)
def test_quantile_and_cdf_undo_each_other_and_the_mean_is_that_of_the_quantiles(model: DelayModel) -> None:
    steps = 20_000
    quantiles = [model.quantile_ms((step + 0.5) / steps) for step in range(steps)]
    for share, ms in zip([(step + 0.5) / steps for step in range(steps)][::97], quantiles[::97], strict=True):
        assert model.cdf(ms) == pytest.approx(share, abs=1e-6)
    assert sum(quantiles) / steps == pytest.approx(model.mean_ms, rel=0.02)
    assert model.cdf(-1) == 0
    assert model.cdf(1e12) == pytest.approx(1)


# The most error-prone cases of a closed form: tails that reach the longest delay, and equal delays in a trace.
EXTREME: list[DelayModel] = [
    Exponential(DELAY_MS_MAX),
    Lognormal(5_000, 5),
    Pareto(1000, 1.0001),
    Pareto(DELAY_MS_MAX, 2),
    Pareto(5, 1000),
    Trace((0, 5, 5, 5, DELAY_MS_MAX)),
]


@pytest.mark.parametrize("model", [*MODELS, *EXTREME], ids=by_kind)
def test_the_mean_excess_over_a_moment_is_the_area_above_the_distribution(model: DelayModel) -> None:
    grid = sorted({0.0, *np.geomspace(0.5, DELAY_MS_MAX, 100_000).tolist()})
    late = np.array([1 - model.cdf(ms) for ms in grid])
    areas = np.concatenate([np.cumsum(((late[1:] + late[:-1]) / 2 * np.diff(grid))[::-1])[::-1], [0.0]])
    for ms, area in list(zip(grid, areas.tolist(), strict=True))[::1009]:
        assert model.beyond_ms(ms) == pytest.approx(area, rel=1e-3, abs=0.1)
    assert model.beyond_ms(DELAY_MS_MAX) == pytest.approx(0, abs=1e-6)


def test_a_fixed_delay_is_the_same_for_every_entry() -> None:
    schedule = Schedule(Fixed(1.5))
    assert {schedule.delay_us(Position(1, version)) for version in range(10)} == {1500}
    assert (Fixed(1.5).mean_ms, Fixed(5).cdf(4.9), Fixed(5).cdf(5)) == (1.5, 0, 1)


def test_a_draw_is_repeated_for_a_version_and_differs_between_versions_seeds_and_replicas() -> None:
    position = Position(1, 7)
    first = uniform(1, "a", position)
    assert first == uniform(1, "a", position)
    assert first == uniform(1, "a", Position(2, 7)), "after a reset a run can be repeated"
    others = [uniform(1, "a", Position(1, 8)), uniform(2, "a", position), uniform(1, "b", position)]
    assert len({first, *others}) == 4
    assert 0 < min(first, *others) <= max(first, *others) < 1


def test_no_delay_exceeds_the_longest_one_allowed() -> None:
    assert Schedule(Pareto(600_000, 1.01)).delay_us(Position(1, 1)) == 600_000_000


def test_whole_milliseconds_are_written_without_a_fraction() -> None:
    assert Settings(Fixed(500.0), Fixed(0.0)).as_text() == (
        '{"delay": {"kind": "fixed", "ms": 500}, "ack": {"kind": "fixed", "ms": 0}, "order": "log", "seed": 0, '
        '"read": {"kind": "fixed", "ms": 0}}'
    )


def test_settings_stored_by_an_earlier_release_are_readable() -> None:
    text = '{"delay": {"kind": "fixed", "ms": 500}, "ack_delay_ms": 7}'
    assert Settings.from_text(text) == Settings(Fixed(500), Fixed(7), "log", 0)


@pytest.mark.parametrize(
    "model",
    [
        *(None, 5, [], {}, {"kind": "fixed"}, {"kind": "other", "ms": 1}, {"kind": "fixed", "ms": 1, "x": 2}),
        *({"kind": "fixed", "ms": ms} for ms in (-1, 600_001, "5", True, None, math.nan)),
        {"kind": "uniform", "low_ms": 5, "high_ms": 5},
        {"kind": "exponential", "mean_ms": 0},
        {"kind": "lognormal", "median_ms": 5, "sigma": 0},
        {"kind": "lognormal", "median_ms": 5, "sigma": 6},
        {"kind": "pareto", "scale_ms": 5, "alpha": 1},
        {"kind": "trace", "delays_ms": [1]},
        {"kind": "trace", "delays_ms": [1, "2"]},
        {"kind": "trace", "delays_ms": [1, 2], "more": 1},
        {"kind": "mixture", "parts": []},
        {"kind": "mixture", "parts": [{"weight": 0, "model": {"kind": "fixed", "ms": 1}}]},
        {"kind": "mixture", "parts": [{"weight": 1}]},
        {"kind": "mixture", "parts": [{"weight": 1, "model": {"kind": "mixture", "parts": []}}]},
    ],
)
def test_an_invalid_model_is_rejected(model: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the sentence depends on what is wrong
        from_json(model)


def test_the_traces_of_a_mixture_share_the_bound_of_a_single_trace() -> None:
    part = {"weight": 1, "model": {"kind": "trace", "delays_ms": [1.0] * 5000}}
    assert from_json({"kind": "mixture", "parts": [part] * 2})
    with pytest.raises(ValueError, match="at most 10000 delays together"):
        from_json({"kind": "mixture", "parts": [part] * 3})


def test_a_mixture_must_not_contain_a_mixture() -> None:
    inner = {"kind": "mixture", "parts": [{"weight": 1, "model": {"kind": "fixed", "ms": 1}}]}
    with pytest.raises(ValueError, match="not contain another mixture"):
        from_json({"kind": "mixture", "parts": [{"weight": 1, "model": inner}]})
