"""The items of a file of JSON: a line each, or the elements of one array."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, NamedTuple

from lab import files
from lab.errors import LabError
from nodes.http import strict_json

LINE_BYTES_MAX = 4 * 2**20
ARRAY_BYTES_MAX = 64 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = re.compile(r"[ \t\n\r]*")


class Item(NamedTuple):
    """A JSON text without line breaks, and its place in the file."""

    place: str
    line: bytes


def read(file: IO[bytes]) -> Iterator[Item]:
    """The lines that are not empty; of a file that begins with ``[``, the elements of that array.

    Whether a line is JSON is left to the primary. Raises ``LabError`` for a line that is too long, for an array that is
    none, and for a file that cannot be read on.
    """
    number = 0
    try:
        while line := file.readline(LINE_BYTES_MAX + 1):
            if number == 0:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if number == 0 and line.lstrip().startswith(b"["):
                yield from _elements(line + file.read(ARRAY_BYTES_MAX))
                return
            if len(line) > LINE_BYTES_MAX:
                raise LabError(f"line {number + 1} is longer than {LINE_BYTES_MAX:,} bytes, which no batch takes")
            for piece in _pieces(line.strip()):
                number += 1
                if text := piece.strip():
                    yield Item(f"line {number}", _one_line(text))
    except OSError as error:
        raise LabError(f"the file cannot be read beyond line {number}: {error.strerror}") from None


def _pieces(line: bytes) -> list[bytes]:
    """A line, or several: a carriage return ends a line too, but it may also stand between two parts of a JSON text."""
    return [line] if b"\r" not in line or _is_json(line) else line.split(b"\r")


def _one_line(text: bytes) -> bytes:
    """The same JSON: a text in it cannot have a line break as it is."""
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


def _elements(raw: bytes) -> list[Item]:
    """The elements of an array. All are read before the first is used, so that a mistake is found in time."""
    if len(raw) > ARRAY_BYTES_MAX:
        raise LabError(f"an array has at most {ARRAY_BYTES_MAX:,} bytes; use one object a line for more")
    text = files.decoded(raw)
    try:
        return list(_parsed(text))
    except json.JSONDecodeError as error:
        raise LabError(f"line {error.lineno}: not JSON, in the array that begins the file: {error.msg}") from None
    except (RecursionError, ValueError):
        raise LabError("the array has an item that is nested too deep, or too long a number") from None


def _parsed(text: str) -> Iterator[Item]:
    decoder = json.JSONDecoder()
    line, counted, number = 1, 0, 0
    at = _after_blank(text, text.index("[") + 1)
    more = text[at : at + 1] != "]"
    while more:
        _, end = decoder.raw_decode(text, at)
        number, line, counted = number + 1, line + text.count("\n", counted, at), at
        yield Item(f"line {line}, item {number}", _one_line(text[at:end].encode()))
        at = _after_blank(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _after_blank(text, at + 1)
        elif text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
    rest = _after_blank(text, at + 1)
    if rest < len(text):
        raise json.JSONDecodeError("Text after the end of the array", text, rest)


def _after_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return at if found is None else found.end()


def _is_json(text: bytes) -> bool:
    try:
        strict_json.loads(text)
    except ValueError:
        return False
    return True
