"""The reads shared by primary and replicas: queries, answers and endpoints."""

import base64
import binascii
from typing import Annotated, Any, NotRequired, Protocol

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from broker.entry import Record
from broker.position import PATTERN, Position
from nodes.http import strict_json
from nodes.http.api import Api, Query, TimeoutMs
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
    min_position: PositionText | None = None
    min_version: Annotated[int, Field(ge=0, lt=10**15)] | None = None
    timeout_ms: TimeoutMs = READ_TIMEOUT_MS

    def target(self, epoch: int) -> Position | None:
        """The position to wait for; a version alone belongs to the node's epoch."""
        if self.min_position is not None:
            return Position.parse(self.min_position)
        return None if self.min_version is None else Position(epoch, self.min_version)


class PageQuery(WaitQuery):
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    cursor: Annotated[str, Field(description="next of the previous page")] = ""

    def after(self) -> str:
        """The key that the cursor stands for. Raises ``Problem`` 400."""
        try:
            return base64.b64decode(self.cursor.encode(), altchars=b"-_", validate=True).decode()
        except (binascii.Error, UnicodeError):
            raise Problem(400, "invalid-parameter", "Invalid parameter", "cursor: not issued by this lab.") from None


class VersionAnswer(TypedDict):
    """A node's position. ``data_age_ms``: age of its newest write; ``reached`` and below: only for a wait."""

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
    data: dict[str, Any]
    next: str | None


class KeyAnswer(TypedDict):
    """``newest_applied`` is beyond ``position`` if entries were applied out of order. ``read_at``: when the store was
    read, after a replica had held the read back for ``read_delay_ms``.
    """

    source: str
    key: str
    value: Any
    version: int
    write_id: str
    write_timestamp: str | None
    position: str
    newest_applied: str
    read_at: str | None
    read_delay_ms: float


class DigestAnswer(TypedDict):
    source: str
    position: str
    keys: int
    digest: str


class Reads(Protocol):
    """The interface that a node provides for reads. Each answer is a consistent cut and includes its state."""

    def state(self) -> State: ...
    def wait_for(self, target: Position, timeout_seconds: float) -> State: ...
    def reached_us(self, position: Position) -> tuple[int, int] | None: ...  # committed, and applied here, if known
    def hold(self) -> float: ...  # holds a read of data back; milliseconds
    def page(self, after: str, limit: int) -> tuple[State, list[Record], bool]: ...  # and whether there are more
    def get(self, key: str) -> tuple[State, Record | None]: ...
    def digest(self) -> tuple[State, int, str]: ...  # number of keys, and digest of the content
    def now_us(self) -> int: ...


def version(source: str, reads: Reads, query: WaitQuery) -> VersionAnswer:
    """The node's position; with min_position or min_version, once it is reached."""
    state, target = _wait(reads, query)
    answer = _version_answer(source, state, reads.now_us())
    if target is not None:
        reached = _is_reached(target, state)
        applied_at, after_ms = since_commit(reads.reached_us(target) if reached else None)
        answer |= {"reached": reached, "applied_at": applied_at, "applied_after_ms": after_ms}
    return answer


def since_commit(times_us: tuple[int, int] | None) -> tuple[str | None, float | None]:
    """The second time as text, and the milliseconds since the first."""
    return (timestamp(times_us[1]), ms(times_us[1] - times_us[0])) if times_us else (None, None)


def add_reads(api: Api, source: str, reads: Reads) -> None:
    """Declare the endpoints for a role's ``app.py``. ``source``: the node's id."""

    @api.route("GET", "/data", admin=False, query=PageQuery, answer=DataAnswer)
    def data(query: PageQuery) -> DataAnswer:
        """The data in key order, a page at a time."""
        target = _require_first(reads, query)
        reads.hold()
        state, records, more = reads.page(query.after(), query.limit)
        _require(target, state, query.timeout_ms)  # a reset may have happened in between
        return {
            **_version_answer(source, state, reads.now_us()),
            "data": {record.key: strict_json.written(record.value) for record in records},
            "next": base64.urlsafe_b64encode(records[-1].key.encode()).decode() if more else None,
        }

    @api.route("GET", "/data/<key:key>", admin=False, query=WaitQuery, answer=KeyAnswer)
    def key(key: str, query: WaitQuery) -> KeyAnswer:
        """A key's value."""
        target = _require_first(reads, query)
        held_ms, read_us = reads.hold(), reads.now_us()
        state, record = reads.get(key)
        _require(target, state, query.timeout_ms)
        position, newest_applied = str(state.position), str(state.newest)
        if record is None:
            where: dict[str, Any] = {"source": source, "position": position, "newest_applied": newest_applied}
            where |= {"read_at": timestamp(read_us), "read_delay_ms": held_ms}
            raise Problem(404, "no-such-key", "No such key", f"{source} has no key {key[:100]!r}.", **where)
        return {
            "source": source,
            "key": key,
            "value": strict_json.written(record.value),
            "version": record.version,
            "write_id": record.write_id,
            "write_timestamp": timestamp(record.at_us),
            "position": position,
            "newest_applied": newest_applied,
            "read_at": timestamp(read_us),
            "read_delay_ms": held_ms,
        }

    @api.route("GET", "/digest", admin=False, answer=DigestAnswer)
    def digest() -> DigestAnswer:
        """Number of keys and digest of the content, as one consistent cut."""
        state, keys, found = reads.digest()
        return {"source": source, "position": str(state.position), "keys": keys, "digest": found}


def _version_answer(source: str, state: State, now_us: int) -> VersionAnswer:
    """The fields of ``/version``. At version 0 nothing has been written, so nothing has an age."""
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


def _wait(reads: Reads, query: WaitQuery) -> tuple[State, Position | None]:
    state = reads.state()
    target = query.target(state.position.epoch)
    if target is not None and state.position < target:
        state = reads.wait_for(target, query.timeout_ms / 1000)
    return state, target


def _require_first(reads: Reads, query: WaitQuery) -> Position | None:
    if query.min_position is None and query.min_version is None:
        return None
    state, target = _wait(reads, query)
    _require(target, state, query.timeout_ms)
    return target


def _is_reached(target: Position, state: State) -> bool:
    return state.position.epoch == target.epoch and state.position >= target


def _require(target: Position | None, state: State, timeout_ms: int) -> None:
    if target is None or _is_reached(target, state):
        return
    extra: dict[str, Any] = {"min_position": str(target), "position": str(state.position)}
    if state.position > target:
        detail = f"{target} is of an earlier epoch: the data was reset, or the log lost its end. The node is at "
        raise Problem(412, "earlier-epoch", "Position of an earlier epoch", f"{detail}{state.position}.", **extra)
    detail = f"{target} was not reached within {timeout_ms} ms; the node is at {state.position}."
    raise Problem(504, "position-not-reached", "Position not reached", detail, **extra)
