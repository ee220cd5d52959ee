"""A class: the results of several gradings, one file each, as one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.table import Table
from rich.text import Text

from lab import files
from lab.errors import LabError
from lab.grade.levels import LEVELS
from lab.grade.report import MARKS
from lab.terminal import table

_BYTES_MAX = 2**20  # of a file
_TEXT_MAX = 10_000
_Text = Annotated[str, Field(max_length=_TEXT_MAX)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Event(_Strict):
    at_us: int
    lane: _Text
    words: _Text
    to: _Text | None


class _Level(_Strict):
    level: Annotated[int, Field(ge=1, le=len(LEVELS))]
    name: _Text
    sentence: _Text
    passed: bool | None
    tested: dict[_Text, int]
    words: _Text
    hint: _Text
    events: list[_Event]


class _Result(_Strict):
    """What ``lab grade --out`` writes."""

    lab: _Text
    command: list[_Text]
    seed: int
    levels: Annotated[list[_Level], Field(min_length=len(LEVELS), max_length=len(LEVELS))]
    passed: int
    of: Literal[8]


def load(path: Path) -> list[bool | None]:
    """Read the mark of each level. Raises ``LabError`` that names the file."""
    try:
        found = _Result.model_validate_json(files.text(path, _BYTES_MAX))
        marks = {level.level: level.passed for level in found.levels}
        if len(marks) < len(LEVELS) or list(marks.values()).count(True) != found.passed:
            raise ValueError("its levels and their sum do not fit together")
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:100]
        raise LabError(f"{path} is not a result of `lab grade --out`: {where or 'the file'}: {first['msg']}") from None
    except ValueError as failure:
        raise LabError(f"{path} is not a result of `lab grade --out`: {failure}") from None
    return [marks[level.number] for level in LEVELS]


def of_class(paths: Sequence[Path]) -> Table:
    """Raises ``LabError`` for the first file that is not a result."""
    numbers = [str(level.number) for level in LEVELS]
    shown = table("", *numbers, "passed", right=("passed",))
    for path, marks in [(path, load(path)) for path in paths]:
        shown.add_row(Text(str(path)), *(Text(*MARKS[mark]) for mark in marks), f"{marks.count(True)} of {len(LEVELS)}")
    return shown
