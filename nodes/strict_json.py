"""JSON as the lab accepts it: RFC 8259 exactly, nested at most 64 deep, and nothing that would come out changed."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from typing import Any, NoReturn

NESTING_MAX = 64
_NESTS = (dict, list)
_EXACT_DIGITS = 15  # a double holds every integer of so many digits
_INTEGER_MAX = 2.0**53  # up to which a double holds every integer


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > _EXACT_DIGITS:
        _double(text)
    return int(text)


def _double(text: str) -> float:
    """The double nearest to a number. Only a fraction may be rounded, and only in its last digits.

    Raises ``ValueError`` for what overflows, underflows, or is an integer that a double would make another.
    """
    found = float(text)
    magnitude = abs(found)
    if sys.float_info.min <= magnitude < _INTEGER_MAX:
        return found
    if magnitude == 0:
        kept = not text.lower().partition("e")[0].strip("-0.")
    elif magnitude == float("inf"):
        kept = False
    else:
        kept = Decimal(text) in {Decimal(found), Decimal(repr(found))}
    if not kept:
        raise ValueError(f"a double does not hold the number {text[:40]}: it is out of range, or has too many digits")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:40]!r} comes twice in an object")
    return found


# Made once: json.loads and json.dumps make one for each call that wants anything unusual.
_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_integer, parse_float=_double, object_pairs_hook=_object
)
_WRITTEN = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def loads(raw: bytes) -> Any:
    """Read one JSON text. Raises ``ValueError`` with a sentence for what is not JSON, NaN and Infinity included."""
    value = _decoded(_DECODER, raw.decode("utf-8"))
    if raw.count(b"[") + raw.count(b"{") > NESTING_MAX and _too_deep(value):
        raise ValueError(f"nested deeper than {NESTING_MAX}")
    return value


def written(text: str) -> Any:
    """Read what a node wrote; an earlier version may have taken other numbers. Raises ``ValueError``."""
    return _decoded(_WRITTEN, text)


def dumps(value: Any) -> str:
    """Write compact JSON text. Raises ``ValueError`` for numbers and texts that JSON cannot carry."""
    text = _ENCODER.encode(value)
    try:
        text.encode("utf-8")  # a lone surrogate cannot be stored, nor sent
    except UnicodeEncodeError:
        raise ValueError("a text is not valid Unicode") from None
    return text


def _decoded(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {NESTING_MAX}") from None


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(NESTING_MAX + 1):
        level = [
            child
            for item in level
            if isinstance(item, _NESTS)
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, _NESTS)
        ]
        if not level:
            return False
    return True
