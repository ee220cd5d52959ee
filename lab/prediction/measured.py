"""Delays that were measured somewhere, in a CSV file."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from lab import files

_BYTES_MAX = 4 * 2**20
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\s*\d+,\d+\s*", re.ASCII)
_SHOWN_MAX = 40


@dataclass(frozen=True)
class Measured:
    """The delays in a file, and how they were read."""

    delays_ms: list[float]
    column: int
    heading: str | None

    def __str__(self) -> str:
        heading = "" if self.heading is None else f" ({self.heading[:_SHOWN_MAX]})"
        return (
            f"{len(self.delays_ms)} delays, {min(self.delays_ms):g} to {max(self.delays_ms):g} ms, "
            f"column {self.column}{heading}"
        )


def read(path: Path) -> Measured:
    """The numbers of a file's last column. Raises ``LabError``, and ``ValueError`` with a sentence that names the line.

    Columns end with a semicolon or a tab, if there is one, and numbers may then have a decimal comma; otherwise with a
    comma. The first line may be a heading.
    """
    text = files.text(path, _BYTES_MAX)
    separator = next((found for found in ";\t" if found in text), ",")
    rows = [(number, row) for number, row in enumerate(_rows(text, separator), 1) if any(map(str.strip, row))]
    if separator == "," and rows and all(_DECIMAL_COMMA.fullmatch(",".join(row)) for _, row in rows):
        shown = ",".join(rows[0][1])
        raise ValueError(f"line {rows[0][0]}: {shown!r} is one number or two; use a decimal point, or add a heading")
    cells = [(number, row[-1].strip()) for number, row in rows]
    heading = None if not cells or re.search(r"\d", cells[0][1]) else cells.pop(0)[1]
    if not cells:
        raise ValueError("there are no delays in it")
    return Measured([_number(cell, line, separator) for line, cell in cells], len(rows[0][1]), heading)


def _rows(text: str, separator: str) -> list[list[str]]:
    try:
        return list(csv.reader(text.splitlines(), delimiter=separator))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _number(cell: str, line: int, separator: str) -> float:
    plain = cell if separator == "," else cell.replace(",", ".", 1)
    if not _NUMBER.fullmatch(plain):
        raise ValueError(f"line {line}: {cell[:_SHOWN_MAX]!r} is not a number")
    return float(plain)
