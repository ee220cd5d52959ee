"""JSON as the lab accepts it: exactly RFC 8259, nested at most 64 deep, without values that a parser would change."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NoReturn

NESTING_MAX = 64
_NESTED = f"nested deeper than {NESTING_MAX}"
_EXACT_DIGITS = 15  # a double holds every integer of this many digits
_INTEGER_MAX = 2.0**53  # up to which a double holds every integer
_SPACE = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{},]', re.DOTALL)  # ends an item, or hides such an end


class Refused(ValueError):
    """Raised for JSON that the lab does not accept."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > _EXACT_DIGITS:
        _double(text)
    return int(text)


def _double(text: str) -> float:
    """Return the nearest double. Raises ``Refused`` if more than the last digits of a fraction would be rounded."""
    found = float(text)
    magnitude = abs(found)
    if sys.float_info.min <= magnitude < _INTEGER_MAX:
        return found
    if magnitude == 0:
        kept = not text.lower().partition("e")[0].strip("-0.")
    else:
        kept = magnitude < float("inf") and Decimal(text) in {Decimal(found), Decimal(repr(found))}
    if not kept:
        raise Refused(f"a double cannot hold the number {text[:40]}: it is out of range or has too many digits")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise Refused(f"the name {twice[:40]!r} appears twice in an object")
    return found


# Made once: json.loads and json.dumps make one for each call with unusual options.
_NUMBERS: Any = {"parse_constant": _refuse_constant, "parse_int": _integer, "parse_float": _double}
_DECODER = json.JSONDecoder(**_NUMBERS, object_pairs_hook=_object)
_WRITTEN = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def loads(raw: bytes) -> Any:
    """Read one JSON text. Raises ``ValueError`` for invalid JSON, NaN and Infinity included."""
    text = raw.decode("utf-8")
    value, end = _value(text, _space(text, 0))
    if _space(text, end) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def items(raw: bytes) -> Iterator[Any]:
    """Yield the items of an array, ``Refused`` in place of a rejected item. Raises ``ValueError`` for invalid JSON."""
    text = raw.decode("utf-8")
    at = _space(text, _space(text, 0) + 1)
    if text[at : at + 1] != "]":
        while True:
            try:
                value, at = _value(text, at)
            except Refused as refused:
                value, at = refused, _end(text, at)
            yield value
            at = _space(text, at)
            if text[at : at + 1] != ",":
                break
            at = _space(text, at + 1)
    if text[at : at + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' or the end of the array", text, at)
    if (end := _space(text, at + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def written(text: str) -> Any:
    """Read JSON that a node wrote; an earlier version may have accepted other numbers. Raises ``ValueError``."""
    try:
        return _WRITTEN.decode(text)
    except RecursionError:
        raise Refused(_NESTED) from None


def dumps(value: Any) -> str:
    """Write compact JSON text. Raises ``ValueError`` for numbers and texts that JSON cannot carry."""
    text = _ENCODER.encode(value)
    try:
        text.encode("utf-8")  # a lone surrogate can be neither stored nor sent
    except UnicodeEncodeError:
        raise ValueError("a text is not valid Unicode") from None
    return text


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError:
        raise Refused(_NESTED) from None
    if text.count("[", at, end) + text.count("{", at, end) > NESTING_MAX and not _fits(value):
        raise Refused(_NESTED)
    return value, end


def _end(text: str, at: int) -> int:
    """The end of an array item, at any depth."""
    depth = 0
    for token in _TOKEN.finditer(text, at):
        if token[0] in {"[", "{"}:
            depth += 1
        elif depth == 0 and token[0] in {",", "]", "}"}:
            return token.start()
        elif token[0] in {"]", "}"}:
            depth -= 1
    return len(text)


def _space(text: str, at: int) -> int:
    return next(_SPACE.finditer(text, at)).end()


def _fits(value: Any, depth: int = NESTING_MAX + 1) -> bool:
    if not isinstance(value, dict | list):
        return True
    children = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_fits(child, depth - 1) for child in children)
