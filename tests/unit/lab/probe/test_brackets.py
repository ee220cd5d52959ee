"""Brackets: what reads show for certain about the moment a write became visible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.probe.brackets import Behind, Bracket, Brackets


@pytest.fixture
def brackets() -> Brackets:
    found = Brackets()
    found.sent(1, "k0001", 10.0)
    found.acked(1, 10.1)
    return found


def test_a_write_becomes_visible_after_the_last_stale_read_and_by_the_first_fresh_one(brackets: Brackets) -> None:
    brackets.read(10.2, 10.3, {})
    brackets.read(10.4, 10.5, {"k0001": 0})
    brackets.read(10.6, 10.7, {"k0001": 1})
    brackets.read(10.8, 10.9, {"k0001": 1})
    (found,) = brackets.all()
    assert found == Bracket(1, 10.0, 10.1, 10.4, 10.7)
    assert found.window == (pytest.approx(0.3), pytest.approx(0.6))


def test_a_write_that_no_read_missed_became_visible_after_it_was_sent(brackets: Brackets) -> None:
    brackets.read(10.05, 10.06, {"k0001": 1})
    assert brackets.all() == [Bracket(1, 10.0, 10.1, 10.0, 10.06)]


def test_a_read_sent_before_the_write_says_nothing_about_it(brackets: Brackets) -> None:
    brackets.read(9.9, 10.3, {})
    brackets.read(9.9, 10.3, {"k0001": 1})
    assert brackets.all() == [Bracket(1, 10.0, 10.1, 10.0, None)]


def test_a_newer_number_of_the_key_shows_the_write(brackets: Brackets) -> None:
    brackets.read(10.2, 10.3, {"k0001": 7})
    assert brackets.all()[0].high == 10.3


def test_a_write_that_is_given_up_is_censored_and_frees_its_key(brackets: Brackets) -> None:
    brackets.read(10.2, 10.3, {})
    brackets.give_up(10.0)
    assert brackets.keys == ["k0001"]
    brackets.give_up(10.01)
    assert brackets.keys == []
    brackets.read(10.4, 10.5, {"k0001": 1})
    assert brackets.all() == [Bracket(1, 10.0, 10.1, 10.2, None)]
    assert brackets.all()[0].window[1] is None


def test_a_replica_is_behind_since_the_first_write_that_was_given_up_also_at_time_0() -> None:
    brackets = Brackets()
    for number, at in ((1, 0.0), (2, 1.0)):
        brackets.sent(number, f"k000{number}", at)
        brackets.acked(number, at)
    brackets.give_up(2.0)
    assert brackets.behind == Behind(2, 0.0, 0)


def test_a_write_that_failed_has_no_bracket_even_if_it_was_seen(brackets: Brackets) -> None:
    for number in (2, 3):
        brackets.sent(number, f"k000{number}", 11.0)
    brackets.read(11.1, 11.2, {"k0002": 2})
    for number in (2, 3):
        brackets.failed(number)
    assert [found.number for found in brackets.all()] == [1]
    assert brackets.keys == ["k0001"]


@given(
    visible=st.floats(0, 1),
    reads=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.2), st.floats(0, 1)), min_size=1, max_size=20),
)
def test_the_truth_is_always_inside(visible: float, reads: list[tuple[float, float, float]]) -> None:
    """A read sees the store at some moment between its sending and its receipt."""
    brackets, at = Brackets(), 0.0
    brackets.sent(1, "k", 0.0)
    brackets.acked(1, 0.01)
    for gap, took, share in reads:
        sent, received = at + gap, at + gap + took
        seen_at = min(received, sent + share * took)
        brackets.read(sent, received, {"k": 1} if seen_at >= visible else {})
        at = received
    (found,) = brackets.all()
    assert found.low <= visible
    assert found.high is None or visible <= found.high
