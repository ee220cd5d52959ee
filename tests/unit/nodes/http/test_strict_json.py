"""JSON as the lab accepts it: accepted values survive unchanged, all others are refused."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.http import strict_json

REFUSED = [
    *["1e400", "-1e309", "1e-400", "-0.1e-323", "5e-324123", "1e999999999999999999999", "1e-999999999999999999999"],
    *["9007199254740993", "-9007199254740993", "9007199254740993.0", "90071992547409930e-1", "18446744073709551615"],
    *["1" + "0" * 400, "1" * 5000, "2.47e-324", "1.23456789e-320", "123456789012345678901234567890"],
]


KEPT = [
    *["0", "-0.0", "0e5", "0.000", "1e308", "1.7976931348623157e308", "5e-324", "1e-320"],
    *["9007199254740991", "9007199254740992", "9007199254740994", "1180591620717411303424", "1e22", "1e23", "6.02e23"],
    *["100000000000000000000000", "0.1", "-2.2250738585072014e-308", "12345678901234567000", "1e0", "123e-2"],
]


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("around", ["{}", '{{"a":[1,{}]}}'])
def test_a_number_that_a_double_cannot_hold_is_refused(text: str, around: str) -> None:
    with pytest.raises(ValueError, match="a double cannot hold"):
        strict_json.loads(around.format(text).encode())


@pytest.mark.parametrize("text", KEPT)
def test_a_number_that_a_double_holds_keeps_its_value(text: str) -> None:
    for found in (strict_json.loads(text.encode()), json.loads(text, parse_int=float)):  # as a browser would read it
        assert Decimal(strict_json.dumps(found)) == Decimal(text) or Decimal(found) == Decimal(text)


def test_zero_is_zero_with_any_exponent() -> None:
    assert strict_json.loads(b"[0e-999999999999999999999, 0.0E99999999999999999999]") == [0, 0]


@pytest.mark.parametrize("text", ["3.14159265358979323846", "0.10000000000000001", "0.30000000000000004"])
def test_a_fraction_is_rounded_to_the_nearest_double(text: str) -> None:
    assert strict_json.loads(text.encode()) == float(text)


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True))
def test_a_number_becomes_the_nearest_double_or_is_refused(text: str) -> None:
    try:
        found = strict_json.loads(text.encode())
    except ValueError:
        return
    exact, kept = Decimal(text), Decimal(strict_json.dumps(found))
    assert abs(exact - kept) <= abs(exact) / 2**52
    if exact == exact.to_integral_value():
        assert kept == exact or Decimal(float(text)) == exact


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_every_double_and_every_exact_integer_is_kept(number: float) -> None:
    found = strict_json.loads(json.dumps(number).encode())
    assert (type(found), repr(found)) == (type(number), repr(number))


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '[{"b":{"a":1,"c":2,"a":3}}]'])
def test_a_duplicate_name_in_an_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="'a' appears twice"):
        strict_json.loads(text.encode())


def test_values_stored_by_an_earlier_version_can_be_read() -> None:
    assert strict_json.written('{"a":[9007199254740993,18446744073709551615]}') == {"a": [2**53 + 1, 2**64 - 1]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\ud800": 1}])
def test_values_that_json_cannot_carry_are_not_written(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the sentence depends on what is wrong
        strict_json.dumps(value)


def test_an_overflowing_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"[Oo]ut of range|not JSON|large"):
        strict_json.dumps(strict_json.loads(b"1e999"))
