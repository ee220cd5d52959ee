"""Delay models: how they are read and what they mean."""

from __future__ import annotations

from typing import Any

import pytest

from broker.delay import Fixed, from_json
from broker.position import Position
from broker.roster import Settings


def test_a_fixed_delay_is_the_same_for_every_entry() -> None:
    model = Fixed(1.5)
    assert {model.delay_us(Position(1, version)) for version in range(10)} == {1500}
    assert model.mean_ms == 1.5


def test_what_is_written_can_be_read() -> None:
    for ms in (0, 500, 0.25, 600_000):
        assert from_json(Fixed(ms).as_json()) == Fixed(ms)
        assert Settings.from_text(Settings(Fixed(ms), ms).as_text()) == Settings(Fixed(ms), ms)


def test_whole_milliseconds_are_written_without_a_fraction() -> None:
    assert Settings(Fixed(500.0), 0.0).as_text() == '{"delay": {"kind": "fixed", "ms": 500}, "ack_delay_ms": 0}'


@pytest.mark.parametrize(
    "model",
    [None, 5, [], {}, {"kind": "fixed"}, {"kind": "other", "ms": 1}, {"kind": "fixed", "ms": 1, "x": 2}]
    + [{"kind": "fixed", "ms": ms} for ms in (-1, 600_001, "5", True, None, float("nan"))],
)
def test_anything_else_is_refused(model: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the sentence depends on what is wrong
        from_json(model)
