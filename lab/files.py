"""Input files named on the command line, each read within a bound: text, and measured delays."""

import csv
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lab.errors import LabError

_DELAYS_BYTES_MAX = 4 * 2**20
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\s*\d+,\d+\s*", re.ASCII)
_SHOWN_MAX = 40


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file opened for reading; ``-`` is standard input. Raises ``LabError``, also for an endless device."""
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


def delays(path: Path) -> tuple[list[float], str]:
    """The numbers in a file's last column, and a summary. Raises ``LabError``; ``ValueError`` that names the line.

    Columns are separated by semicolons or tabs if the file has any, and numbers can then have a decimal comma;
    otherwise by commas. The first line can be a heading.
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
        raise ValueError(f"line {rows[0][0]}: {shown!r} could be one or two numbers; use a decimal point or a heading")
    cells = [(number, row[-1].strip()) for number, row in rows]
    heading = None if not cells or re.search(r"\d", cells[0][1]) else cells.pop(0)[1]
    if not cells:
        raise ValueError("the file contains no delays")
    found = [_number(cell, line, separator) for line, cell in cells]
    column = f"{len(rows[0][1])}{'' if heading is None else f' ({heading[:_SHOWN_MAX]})'}"
    return found, f"{len(found)} delays, {min(found):g} to {max(found):g} ms, column {column}"


def _number(cell: str, line: int, separator: str) -> float:
    plain = cell if separator == "," else cell.replace(",", ".", 1)
    if not _NUMBER.fullmatch(plain):
        raise ValueError(f"line {line}: {cell[:_SHOWN_MAX]!r} is not a number")
    return float(plain)
