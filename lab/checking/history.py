"""A history: the plan of a workload, every operation in the order of invocation, and the files of both."""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from broker.delay.models import Order
from broker.position import START, Position
from lab import files
from lab.errors import LabError, NothingTestedError
from nodes.http.level import Level

Kind = Literal["write", "read", "final", "digest"]
Outcome = Literal["ok", "fail", "unknown"]
PlanLevel = Literal[Level, "observed"]
Guarantee = Literal[
    "read_your_writes",
    "monotonic_reads",
    "monotonic_writes",
    "writes_follow_reads",
    "consistent_prefix",
    "bounded_staleness",
    "real_time",
    "no_lost_write",
    "no_phantom_write",
    "convergence",
]
OPERATIONS_MAX = 2_000_000  # bounds the memory of a run, and of a file that is read
_LINE_BYTES_MAX = 4 * 2**20
_PLACE_MAX = 40  # characters of a field's name in an error
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a session, or the content of a node at the end.

    ``write`` has its assigned position; ``read`` has the position of the store that served it, and the version of the
    record, 0 if the key was missing. ``final`` is such a read from the primary after everything else, and ``digest`` is
    a node's digest at its final position. ``invoked_us`` and ``returned_us`` are microseconds by one clock for the
    whole history; ``waited_ms`` is the time a read waited for its level, measured by the client service. ``epoch`` is
    the record's epoch if known, otherwise the store's is assumed: a log can continue in a later epoch and keep its
    records. ``acks``: how many replicas had acknowledged a write when it returned, if it waited for any. ``fail`` had
    no effect, ``unknown`` may have had one.

    In a history without positions, ``version`` is also what a write gave the record. The versions of a key are in
    the order of its writes. ``token`` is what a store returned to identify its state: shown, never compared.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    index: int
    session: int
    kind: Kind
    outcome: Outcome
    invoked_us: int
    returned_us: int
    key: str = ""
    value: str | None = None
    position: Annotated[
        Position | None, PlainValidator(lambda text: None if text is None else Position.parse(str(text)))
    ] = None
    version: Annotated[int, Field(ge=0)] = 0
    node: str = ""
    digest: str = ""
    waited_ms: float = 0.0
    epoch: int | None = None
    acks: int | None = None
    token: str = ""

    @property
    def seen(self) -> Position:
        """The position of the written or shown record. A store of a later epoch correctly lacks earlier records."""
        if self.position is None:
            return Position(self.epoch or 0, self.version)
        if self.kind == "write":
            return self.position
        return Position(self.position.epoch if self.epoch is None else self.epoch, self.version)

    def as_json(self) -> dict[str, Any]:
        found = {**asdict(self), "position": None if self.position is None else str(self.position)}
        left_out = {"digest": not self.digest, "waited_ms": not self.waited_ms, "epoch": self.epoch is None}
        left_out |= {"acks": self.acks is None, "token": not self.token}
        return {name: value for name, value in found.items() if not left_out.get(name)}


@dataclass(frozen=True)
class Plan:
    """Parameters of a workload. ``max_lag_…``: for level ``bounded``. ``order``: ``arrival`` if any replica used it.

    For level ``quorum``, reads ask ``r`` of ``n`` replicas, and writes wait for the acknowledgements of ``w``. Level
    ``observed`` is that of another store, and promises nothing; what is ``expected`` of it must hold all the same.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    level: PlanLevel
    sessions: int = 10
    seconds: float = 10.0
    keys: int = 10
    seed: int = 0
    write_share: float = 0.2
    max_lag_ms: float | None = None
    max_lag_versions: int | None = None
    order: Order = "log"
    r: int | None = None
    w: int | None = None
    n: int | None = None
    positions: bool = True
    expected: tuple[Guarantee, ...] = ()

    @property
    def quorums_overlap(self) -> bool:
        """Whether every read asks a replica that has acknowledged the newest write."""
        return None not in {self.r, self.w, self.n} and (self.r or 0) + (self.w or 0) > (self.n or 0)


class Timeline:
    """Operations by return time, and the newest state that any of them had seen by then."""

    def __init__(
        self, operations: Iterable[Operation], age: Callable[[Operation], Position] = attrgetter("seen")
    ) -> None:
        """``age``: the position by which one operation is newer than another."""
        ordered = sorted(operations, key=lambda found: found.returned_us)
        self._returned_us = [found.returned_us for found in ordered]
        self._newest: list[Operation] = []
        for operation in ordered:
            newest = self._newest[-1] if self._newest else operation
            self._newest.append(operation if age(operation) >= age(newest) else newest)

    def by(self, at_us: int) -> Operation | None:
        """Return the operation with the newest state among those that had returned by then."""
        found = bisect_right(self._returned_us, at_us)
        return self._newest[found - 1] if found else None

    def before(self, at_us: int) -> Operation | None:
        return self.by(at_us - 1)


class History:
    def __init__(self, plan: Plan, operations: Iterable[Operation]) -> None:
        self.plan = plan
        self.operations = sorted(operations, key=lambda found: (found.invoked_us, found.index))
        self.writes = self._succeeded("write")
        self.reads = self._succeeded("read")
        self.finals = self._succeeded("final")
        self.digests = [found for found in self.operations if found.kind == "digest"]
        self.writer = {(found.key, found.seen): found for found in self.writes}
        self.began_us = self.operations[0].invoked_us if self.operations else 0

    def _succeeded(self, kind: Kind) -> list[Operation]:
        return [found for found in self.operations if found.kind == kind and found.outcome == "ok"]

    def by_session(self) -> dict[int, list[Operation]]:
        """Return each session's successful writes and reads, in session order."""
        found: dict[int, list[Operation]] = defaultdict(list)
        for operation in self.operations:
            if operation.outcome == "ok" and operation.kind in {"write", "read"}:
                found[operation.session].append(operation)
        return found

    def writes_by_key(self) -> dict[str, list[Operation]]:
        """Return each key's successful writes, in log order."""
        found: dict[str, list[Operation]] = defaultdict(list)
        for write in sorted(self.writes, key=lambda write: write.seen):
            found[write.key].append(write)
        return found


def newest_through(writes: list[Operation], position: Position) -> Operation | None:
    """Return the last of these writes (in log order) at or before that position in its epoch."""
    found = bisect_right(writes, position, key=lambda write: write.position or START)
    if not found or writes[found - 1].seen.epoch != position.epoch:
        return None
    return writes[found - 1]


_HEAD = TypeAdapter(dict[Literal["plan"], Plan])  # the first line of a file
_OPERATION = TypeAdapter(Operation)


def save(history: History, path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"plan": asdict(history.plan)}) + "\n")
            file.writelines(json.dumps(found.as_json(), ensure_ascii=False) + "\n" for found in history.operations)
    except OSError as error:
        raise LabError(f"the history cannot be saved: {error}") from None


def load(path: Path) -> History:
    """Read a history. Raises ``LabError`` that names the line, ``NothingTestedError`` if there are no operations."""
    operations: list[Operation] = []
    plan = Plan("eventual")
    number = 0
    with files.opened(path) as file:
        try:
            while line := file.readline(_LINE_BYTES_MAX + 1):
                number += 1
                if len(line) > _LINE_BYTES_MAX or len(operations) == OPERATIONS_MAX:
                    raise ValueError(f"more than {_LINE_BYTES_MAX:,} bytes, or {OPERATIONS_MAX:,} operations")
                if number == 1 and line.startswith(b'{"plan"'):
                    plan = _parse(_HEAD, line)["plan"]
                else:
                    operations.append(_operation(line, plan))
        except (OSError, ValueError) as error:
            raise LabError(f"{path}, line {number}: {error}") from None
    if not operations:
        raise NothingTestedError(f"{path} has no operations; nothing was tested")
    return History(plan, operations)


def _operation(line: bytes, plan: Plan) -> Operation:
    operation: Operation = _parse(_OPERATION, line)
    if operation.returned_us < operation.invoked_us:
        raise ValueError("returned_us: before invoked_us")
    if plan.positions and operation.outcome == "ok" and operation.position is None:
        raise ValueError('position: missing, although outcome is "ok"')
    if not plan.positions and operation.position is not None:
        raise ValueError("position: given, although the plan has no positions")
    if not plan.positions and operation.kind == "write" and operation.outcome == "ok" and not operation.version:
        raise ValueError('version: missing, although outcome is "ok"')
    return operation


def _parse(adapter: TypeAdapter[Any], text: bytes) -> Any:
    """Raise ``ValueError`` with a message that names the field and what is allowed."""
    try:
        return adapter.validate_json(text)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:_PLACE_MAX] for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {message}" if place else message) from None


def elle_events(history: History) -> list[dict[str, Any]]:
    """Return elle-cli's transactions (model ``rw-register``) in time order; a write's value is its unique number."""
    number = {write.index: n for n, write in enumerate((w for w in history.operations if w.kind == "write"), 1)}
    moments: list[tuple[int, int, int, dict[str, Any]]] = []
    for found in history.operations:
        if found.kind not in {"write", "read"}:
            continue
        invoked, completed = _micro_operations(found, history, number)
        common = {"process": found.session, "f": "txn"}
        kind = {"ok": "ok", "fail": "fail", "unknown": "info"}[found.outcome]
        moments.append((found.invoked_us, 1, found.index, {**common, "type": "invoke", "value": [invoked]}))
        moments.append((found.returned_us, 0, found.index, {**common, "type": kind, "value": [completed]}))
    moments.sort(key=lambda moment: moment[:3])
    return [{"index": index, "time": at_us * 1000, **event} for index, (at_us, _, _, event) in enumerate(moments)]


def _micro_operations(found: Operation, history: History, number: dict[int, int]) -> tuple[list[Any], list[Any]]:
    if found.kind == "write":
        written = ["w", found.key, number[found.index]]
        return written, written
    write = history.writer.get((found.key, found.seen)) if found.outcome == "ok" and found.version else None
    return ["r", found.key, None], ["r", found.key, None if write is None else number[write.index]]


def export(history: History, path: Path) -> None:
    try:
        path.write_text(json.dumps(elle_events(history), ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise LabError(f"the history cannot be exported: {error}") from None
