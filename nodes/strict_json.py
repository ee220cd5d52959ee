"""JSON as the lab accepts it: RFC 8259 exactly, nested at most 64 deep."""

from __future__ import annotations

import json
from typing import Any, NoReturn

NESTING_MAX = 64
_NESTS = (dict, list)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: json.loads and json.dumps make one for each call that wants anything unusual.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def loads(raw: bytes) -> Any:
    """Read one JSON text. Raises ``ValueError`` with a sentence for what is not JSON, NaN and Infinity included."""
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"nested deeper than {NESTING_MAX}") from None
    if raw.count(b"[") + raw.count(b"{") > NESTING_MAX and _too_deep(value):
        raise ValueError(f"nested deeper than {NESTING_MAX}")
    return value


def dumps(value: Any) -> str:
    """Write compact JSON text. Raises ``ValueError`` for numbers and texts that JSON cannot carry."""
    text = _ENCODER.encode(value)
    try:
        text.encode("utf-8")  # a lone surrogate cannot be stored, nor sent
    except UnicodeEncodeError:
        raise ValueError("a text is not valid Unicode") from None
    return text


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
