"""Input files named on the command line, each read within a bound: text, JSON items, and measured delays."""

import csv
import json
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from lab.errors import LabError
from nodes.http import strict_json

LINE_BYTES_MAX = 4 * 2**20
ARRAY_BYTES_MAX = 64 * 2**20
_DELAYS_BYTES_MAX = 4 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TO_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # the same JSON: its strings have no unescaped line breaks
_BLANK = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\s*\d+,\d+\s*", re.ASCII)
_SHOWN_MAX = 40


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file opened for reading; ``-`` is standard input. Raises ``LabError``, also for a device: it may not end."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "a device or a socket"
            raise LabError(f"{path} cannot be read: it is {kind}, not a file")
        file: IO[bytes] = path.open("rb")
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}") from None
    with file:
        yield file


def text(path: Path, bytes_max: int) -> str:
    """The text of a UTF-8 file, without a byte order mark. Raises ``LabError``."""
    try:
        with opened(path) as file:
            raw = file.read(bytes_max + 1)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > bytes_max:
        raise LabError(f"{path} has more than the allowed {bytes_max:,} bytes")
    return decoded(raw, f"{path}, ")


def decoded(raw: bytes, where: str = "") -> str:
    """Decode UTF-8, without a byte order mark. Raises ``LabError`` that names the line."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise LabError(f"{where}line {line}: not UTF-8: {error.reason}") from None


# -- JSON items -------------------------------------------------------------------------------------------------------
class Item(NamedTuple):
    """A JSON text without line breaks, and its place in the file."""

    place: str
    line: bytes


def items(file: IO[bytes]) -> Iterator[Item]:
    """The lines that are not empty; of a file that begins with ``[``, the elements of that array.

    Raises ``LabError`` for a line that is too long and an invalid array; the primary checks whether a line is JSON.
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
                raise LabError(f"line {number + 1} is longer than the {LINE_BYTES_MAX:,} bytes that fit in a batch")
            for piece in _pieces(line.strip()):
                number += 1
                if found := piece.strip():
                    yield Item(f"line {number}", found.translate(_TO_ONE_LINE))
    except OSError as error:
        raise LabError(f"the file cannot be read beyond line {number}: {error.strerror}") from None


def _pieces(line: bytes) -> list[bytes]:
    """Split at carriage returns, which end a line too, unless they stand between two parts of one JSON text."""
    if b"\r" in line:
        try:
            strict_json.loads(line)
        except ValueError:
            return line.split(b"\r")
    return [line]


def _elements(raw: bytes) -> list[Item]:
    """The elements of an array. All are read before the first is used, so that a mistake is found in time."""
    if len(raw) > ARRAY_BYTES_MAX:
        raise LabError(f"an array has at most {ARRAY_BYTES_MAX:,} bytes; use one object per line for more")
    try:
        return list(_parsed(decoded(raw)))
    except json.JSONDecodeError as error:
        raise LabError(f"line {error.lineno}: not JSON, in the array that begins the file: {error.msg}") from None
    except (RecursionError, ValueError):
        raise LabError("the array has an item that is nested too deep, or a number that is too long") from None


def _parsed(array: str) -> Iterator[Item]:
    decoder = json.JSONDecoder()
    line, counted, number = 1, 0, 0
    at = _after_blank(array, array.index("[") + 1)
    more = array[at : at + 1] != "]"
    while more:
        _, end = decoder.raw_decode(array, at)
        number, line, counted = number + 1, line + array.count("\n", counted, at), at
        yield Item(f"line {line}, item {number}", array[at:end].encode().translate(_TO_ONE_LINE))
        at = _after_blank(array, end)
        more = array[at : at + 1] == ","
        if more:
            at = _after_blank(array, at + 1)
        elif array[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", array, at)
    rest = _after_blank(array, at + 1)
    if rest < len(array):
        raise json.JSONDecodeError("Text after the end of the array", array, rest)


def _after_blank(array: str, at: int) -> int:
    found = _BLANK.match(array, at)
    return at if found is None else found.end()


# -- measured delays --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Delays:
    delays_ms: list[float]
    column: int
    heading: str | None

    def __str__(self) -> str:
        heading = "" if self.heading is None else f" ({self.heading[:_SHOWN_MAX]})"
        span = f"{min(self.delays_ms):g} to {max(self.delays_ms):g} ms"
        return f"{len(self.delays_ms)} delays, {span}, column {self.column}{heading}"


def delays(path: Path) -> Delays:
    """The numbers in a file's last column. Raises ``LabError``, and ``ValueError`` with a sentence that names the line.

    Columns end with a semicolon or a tab, if the file has one, and numbers may then have a decimal comma; otherwise
    with a comma. The first line may be a heading.
    """
    content = text(path, _DELAYS_BYTES_MAX)
    separator = next((found for found in ";\t" if found in content), ",")
    try:
        lines = list(csv.reader(content.splitlines(), delimiter=separator))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    rows = [(number, row) for number, row in enumerate(lines, 1) if any(map(str.strip, row))]
    if separator == "," and rows and all(_DECIMAL_COMMA.fullmatch(",".join(row)) for _, row in rows):
        shown = ",".join(rows[0][1])
        raise ValueError(f"line {rows[0][0]}: {shown!r} is one number or two; use a decimal point, or add a heading")
    cells = [(number, row[-1].strip()) for number, row in rows]
    heading = None if not cells or re.search(r"\d", cells[0][1]) else cells.pop(0)[1]
    if not cells:
        raise ValueError("the file contains no delays")
    return Delays([_number(cell, line, separator) for line, cell in cells], len(rows[0][1]), heading)


def _number(cell: str, line: int, separator: str) -> float:
    plain = cell if separator == "," else cell.replace(",", ".", 1)
    if not _NUMBER.fullmatch(plain):
        raise ValueError(f"line {line}: {cell[:_SHOWN_MAX]!r} is not a number")
    return float(plain)
