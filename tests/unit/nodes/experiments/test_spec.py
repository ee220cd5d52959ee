"""Specifications of experiments: valid ones, and the steps of a sweep."""

from typing import Any

import pytest
from pydantic import ValidationError

from nodes.experiments.spec import ExperimentBody, Sweep

WINDOWS = {"kind": "windows"}


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"kind": "nothing"},
        {"kind": "windows", "writes": 0},
        {"kind": "windows", "writes": 1.5},
        {"kind": "windows", "rate": 0},
        {"kind": "windows", "more": 1},
        {"kind": "windows", "writes": 20_000, "rate": 1},
        {"kind": "windows", "settings": {"r": {}}},
        {"kind": "windows", "settings": {"r": {"delay_ms": -1}}},
        {"kind": "windows", "settings": {"r": {"model": {"kind": "zipf"}}}},
        {"kind": "staleness", "steps": 1},
        {"kind": "staleness", "horizon_ms": 0},
        {"kind": "levels", "levels": ["best"]},
        {"kind": "quorum", "n": 2, "r": 1, "w": 3},
        {"kind": "sweep", "parameter": "rate", "values": [1], "experiment": WINDOWS},
        {"kind": "sweep", "parameter": "rate", "values": [1, "x"], "experiment": WINDOWS},
        {"kind": "sweep", "parameter": "nothing", "values": [1, 2], "experiment": WINDOWS},
        {"kind": "sweep", "parameter": "kind", "values": ["windows", "levels"], "experiment": WINDOWS},
        {"kind": "sweep", "parameter": "rate.more", "values": [1, 2], "experiment": WINDOWS},
        {"kind": "sweep", "parameter": "a b", "values": [1, 2], "experiment": WINDOWS},
        {"kind": "sweep", "parameter": "rate", "values": [1, 2], "experiment": WINDOWS, "settings": {"r": {"seed": 1}}},
        {"kind": "sweep", "parameter": "rate", "values": [1, 2], "experiment": {"kind": "sweep"}},
        {"kind": "sweep", "parameter": "writes", "values": [10_000] * 4, "experiment": {"kind": "windows", "rate": 10}},
    ],
)
def test_an_invalid_experiment_or_one_that_takes_more_than_an_hour_is_rejected(found: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExperimentBody.model_validate(found)


def test_a_sweep_has_the_experiment_with_each_value() -> None:
    base = {"kind": "windows", "settings": {"r": {"model": {"kind": "fixed", "ms": 5}}}}
    found = {"kind": "sweep", "parameter": "settings.r.delay_ms", "values": [10, 20], "experiment": base}
    sweep = ExperimentBody.model_validate(found).root
    assert isinstance(sweep, Sweep)
    assert [step.settings["r"].delay_ms for step in sweep.steps] == [10, 20]
    assert [step.settings["r"].model for step in sweep.steps] == [None, None]
    assert sweep.seconds == sum(step.seconds for step in sweep.steps) >= 40
