"""What primary and replicas answer: the shapes, and the parts that both of them build alike."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from broker.entry import Record
from broker.position import PATTERN, Position
from nodes.http import strict_json
from nodes.http.api import Query, TimeoutMs
from nodes.http.problem import Problem
from nodes.http.times import ms, timestamp
from nodes.runtime.gate import State

PAGE_BYTES_MAX = 8 * 2**20
READ_TIMEOUT_MS = 2000


def _checked_position(text: str) -> str:
    Position.parse(text)
    return text


PositionText = Annotated[str, AfterValidator(_checked_position), Field(json_schema_extra={"pattern": f"^{PATTERN}$"})]


class WaitQuery(Query):
    """What to wait for, and how long at the most."""

    min_position: PositionText | None = None
    min_version: Annotated[int, Field(ge=0, lt=10**15)] | None = None
    timeout_ms: TimeoutMs = READ_TIMEOUT_MS

    def target(self, epoch: int) -> Position | None:
        """The position asked for; a version alone is one of the node's epoch."""
        if self.min_position is not None:
            return Position.parse(self.min_position)
        return None if self.min_version is None else Position(epoch, self.min_version)


class PageQuery(WaitQuery):
    """A page of the data."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    cursor: Annotated[str, Field(description="next of the page before")] = ""

    def after(self) -> str:
        """The key that the cursor stands for. Raises ``Problem`` 400."""
        try:
            return base64.b64decode(self.cursor.encode(), altchars=b"-_", validate=True).decode()
        except (binascii.Error, UnicodeError):
            raise Problem(
                400, "invalid-parameter", "Invalid parameter", "cursor: not one that this lab gave."
            ) from None


class VersionAnswer(TypedDict):
    """Where a node is. ``data_age_ms``: age of its newest write; ``reached`` and below: only when asked to wait."""

    source: str
    version: int
    epoch: int
    position: str
    write_id: str | None
    write_timestamp: str | None
    data_age_ms: float | None
    reached: NotRequired[bool]
    applied_at: NotRequired[str | None]
    applied_after_ms: NotRequired[float | None]


class DataAnswer(VersionAnswer):
    """A page of the data at that position."""

    data: dict[str, Any]
    next: str | None


class KeyAnswer(TypedDict):
    """A key's value, the version that put it there, and the position of the node that answers."""

    source: str
    key: str
    value: Any
    version: int
    write_id: str
    write_timestamp: str | None
    position: str


class DigestAnswer(TypedDict):
    """What a node holds, as one consistent cut."""

    source: str
    position: str
    keys: int
    digest: str


def version_answer(source: str, state: State, now_us: int) -> VersionAnswer:
    """The fields of ``/version``. Nothing has been written yet at version 0, so nothing has an age."""
    epoch, version = state.position
    written_us = state.at_us if version else None
    return {
        "source": source,
        "version": version,
        "epoch": epoch,
        "position": str(state.position),
        "write_id": state.write_id if version else None,
        "write_timestamp": timestamp(written_us),
        "data_age_ms": None if written_us is None else ms(max(0, now_us - written_us)),
    }


def data_answer(source: str, state: State, records: list[Record], *, more: bool, now_us: int) -> DataAnswer:
    """A page, and the cursor to its successor."""
    cursor = base64.urlsafe_b64encode(records[-1].key.encode()).decode() if more else None
    data = {record.key: strict_json.written(record.value) for record in records}
    return {**version_answer(source, state, now_us), "data": data, "next": cursor}


def key_answer(source: str, state: State, key: str, record: Record | None) -> KeyAnswer:
    """A record. Raises ``Problem`` 404 where it is missing, with the position at which it is."""
    if record is None:
        where = {"source": source, "position": str(state.position)}
        raise Problem(404, "no-such-key", "No such key", f"{source} has no key {key[:100]!r}.", **where)
    return {
        "source": source,
        "key": key,
        "value": strict_json.written(record.value),
        "version": record.version,
        "write_id": record.write_id,
        "write_timestamp": timestamp(record.at_us),
        "position": str(state.position),
    }


def require(target: Position | None, state: State, timeout_ms: int) -> None:
    """Hold a read to the position it asked for. Raises ``Problem`` 412 or 504."""
    if target is None or (state.position.epoch == target.epoch and state.position >= target):
        return
    asked: dict[str, Any] = {"min_position": str(target), "position": str(state.position)}
    if state.position > target:
        detail = (
            f"{target} is of an earlier epoch; the data was reset, or the log lost its end; it is at {state.position}."
        )
        raise Problem(412, "earlier-epoch", "Position of an earlier epoch", detail, **asked)
    detail = f"{target} was not reached within {timeout_ms} ms; the node is at {state.position}."
    raise Problem(504, "position-not-reached", "Position not reached", detail, **asked)
