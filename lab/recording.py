"""Recordings of the event feed, as the console saves them: JSON lines, a message each."""

from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from broker.position import Position
from lab import files
from lab.errors import LabError
from nodes.http import strict_json

_BYTES_MAX = 64 * 2**20
_MESSAGES_MAX = 100_000
_TimeMs = Annotated[float, Field(ge=0, le=1e14)]
_PositionText = Annotated[str, Field(max_length=40), AfterValidator(lambda text: str(Position.parse(text)))]


class _Write(TypedDict):
    position: _PositionText


class _Applied(TypedDict):
    replica: str
    position: _PositionText


class _State(TypedDict):
    replica_id: str
    applied_position: _PositionText
    lag_ms: float
    lag_versions: int
    pending: int
    delay_ms: float
    live: bool
    faults: list[str]
    diverged: bool
    resyncing: str


class _Event(TypedDict):
    at_ms: _TimeMs
    kind: str


class _Unreachable(TypedDict):
    detail: str


class _Message(TypedDict):
    """What a message needs to be shown."""

    now_ms: _TimeMs
    writes: NotRequired[list[_Write]]
    applied: NotRequired[list[_Applied]]
    state: NotRequired[list[_State]]
    events: NotRequired[list[_Event]]
    unreachable: NotRequired[list[_Unreachable]]


_MESSAGE = TypeAdapter(_Message)


def load(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """A recording: its text, and its messages, at least one. Raises ``LabError`` that names the line."""
    text = files.text(path, _BYTES_MAX)
    lines = text.split("\n")
    found = [_message(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise LabError(f"{path} contains no messages")
    if len(found) > _MESSAGES_MAX:
        raise LabError(f"{path} has more than the allowed {_MESSAGES_MAX:,} messages")
    return text, found


def _message(path: Path, number: int, line: str) -> dict[str, Any]:
    where = f"{path}, line {number}"
    try:
        found = strict_json.loads(line.encode())
        _MESSAGE.validate_python(found, strict=True)
    except ValidationError as failure:
        error = failure.errors(include_url=False)[0]
        place = ".".join(map(str, error["loc"]))
        why = f"{place}: {error['msg']}" if place else error["msg"]
        raise LabError(f"{where}: not a message of the event feed: {why}") from None
    except ValueError as error:
        raise LabError(f"{where}: not JSON: {error}") from None
    return dict(found)
