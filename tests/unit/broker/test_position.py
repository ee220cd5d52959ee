"""Positions: formatting, parsing and order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.position import START, Position

numbers = st.integers(0, 10**15 - 1)


@given(numbers, numbers)
def test_written_text_can_be_read_back(epoch: int, version: int) -> None:
    position = Position(epoch, version)
    assert Position.parse(str(position)) == Position.of_entry(str(position)) == position


REFUSED = [
    *["", "1", "1-", "-1", "1-2-3", "a-1", "1-a", "01-1", "1-01", " 1-1", "1-1\n", "+1-1", "1-1.0", "1--1", "$"],
    *["\u0661-\u0661", "1-" + "9" * 16, "9" * 4000 + "-1"],
]


@pytest.mark.parametrize("text", REFUSED)
def test_an_invalid_position_is_rejected_with_an_explanation(text: str) -> None:
    with pytest.raises(ValueError, match="a position looks like 1-42"):
        Position.parse(text)


def test_positions_are_ordered_by_number_and_not_by_text() -> None:
    assert Position(1, 9) < Position(1, 10) < Position(2, 0) < Position(10, 0)
    assert Position(1, 0) > START


def test_a_position_is_followed_by_the_next_version_or_the_start_of_a_later_epoch() -> None:
    here = Position(2, 7)
    followers = [Position(2, 8), Position(3, 0), Position(9, 0)]
    assert all(here.is_followed_by(other) for other in followers)
    others = [here, Position(2, 9), Position(2, 6), Position(3, 1), Position(1, 0), Position(2, 0)]
    assert not any(here.is_followed_by(other) for other in others)


def test_a_position_is_followed_by_positions_without_a_gap() -> None:
    here = Position(2, 7)
    chain = [Position(2, 8), Position(2, 9), Position(4, 0), Position(4, 1)]
    assert here.is_followed_by_all(chain)
    assert here.is_followed_by_all([])
    for others in ([(2, 9)], [(2, 8), (2, 10)], [(2, 8), (2, 8)], [(2, 8), (4, 1)]):
        assert not here.is_followed_by_all(Position(*other) for other in others)
