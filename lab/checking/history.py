"""A history: what was promised, and every operation in the order in which they were invoked."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from broker.delay import Order
from broker.position import START, Position
from lab import files
from lab.checking.operation import STRICT, Operation, from_json, parsed
from lab.errors import LabError, NothingTestedError
from nodes.http.level import Level

_LINE_BYTES_MAX = 4 * 2**20
OPERATIONS_MAX = 2_000_000


@dataclass(frozen=True)
class Plan:
    """What a workload was to do, and in which order the replicas applied.

    ``max_lag_ms`` and ``max_lag_versions``: the bounds of level ``bounded``. ``order``: that of arrival if any replica
    applied in it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    level: Level
    sessions: int = 10
    seconds: float = 10.0
    keys: int = 10
    seed: int = 0
    write_share: float = 0.2
    max_lag_ms: float | None = None
    max_lag_versions: int | None = None
    order: Order = "log"


class _Head(TypedDict):
    """The first line of a file."""

    plan: Plan


_HEAD = TypeAdapter(_Head)


@dataclass
class Timeline:
    """Operations by the time at which they had returned, and the newest that any of them had seen by then."""

    returned_us: list[int] = field(default_factory=list)
    newest: list[Operation] = field(default_factory=list)

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Timeline:
        """Sort them."""
        timeline = cls()
        for operation in sorted(operations, key=lambda found: found.returned_us):
            newest = timeline.newest[-1] if timeline.newest else operation
            timeline.returned_us.append(operation.returned_us)
            timeline.newest.append(operation if operation.seen >= newest.seen else newest)
        return timeline

    def before(self, at_us: int) -> Operation | None:
        """The operation that had seen the newest among all that had returned by then."""
        found = bisect_right(self.returned_us, at_us)
        return self.newest[found - 1] if found else None


class History:
    """Operations, and what several checkers want of them."""

    def __init__(self, plan: Plan, operations: Iterable[Operation]) -> None:
        self.plan = plan
        self.operations = sorted(operations, key=lambda found: (found.invoked_us, found.index))
        self.writes = [found for found in self.operations if found.kind == "write" and found.outcome == "ok"]
        self.reads = [found for found in self.operations if found.kind == "read" and found.outcome == "ok"]
        self.finals = [found for found in self.operations if found.kind == "final" and found.outcome == "ok"]
        self.digests = [found for found in self.operations if found.kind == "digest"]
        self.writer = {(found.key, found.seen): found for found in self.writes}

    def by_session(self) -> dict[int, list[Operation]]:
        """Each session's successful writes and reads, in its own order."""
        found: dict[int, list[Operation]] = defaultdict(list)
        for operation in self.operations:
            if operation.outcome == "ok" and operation.kind in {"write", "read"}:
                found[operation.session].append(operation)
        return found

    def writes_by_key(self) -> dict[str, list[Operation]]:
        """Each key's successful writes, in the order of the log."""
        found: dict[str, list[Operation]] = defaultdict(list)
        for write in sorted(self.writes, key=lambda write: write.seen):
            found[write.key].append(write)
        return found

    @property
    def began_us(self) -> int:
        """When its first operation was invoked."""
        return self.operations[0].invoked_us if self.operations else 0


def newest_through(writes: list[Operation], position: Position) -> Operation | None:
    """The last of these writes, in the order of the log, at that position or before, in its epoch."""
    found = bisect_right(writes, position, key=lambda write: write.position or START)
    if not found or writes[found - 1].seen.epoch != position.epoch:
        return None
    return writes[found - 1]


def save(history: History, path: Path) -> None:
    """Write a history: the plan, then a line per operation. Raises ``LabError``."""
    try:
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"plan": asdict(history.plan)}) + "\n")
            file.writelines(json.dumps(found.as_json(), ensure_ascii=False) + "\n" for found in history.operations)
    except OSError as error:
        raise LabError(f"the history cannot be saved: {error}") from None


def load(path: Path) -> History:
    """Read a history. Raises ``LabError`` that names the line."""
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
                    plan = parsed(_HEAD, line)["plan"]
                else:
                    operations.append(from_json(line))
        except (OSError, ValueError) as error:
            raise LabError(f"{path}, line {number}: {error}") from None
    if not operations:
        raise NothingTestedError(f"{path} has no operations; nothing was tested")
    return History(plan, operations)
