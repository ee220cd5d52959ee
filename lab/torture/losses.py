"""The acknowledged writes that the log lost when another server took over, and whether the lab named each of them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from broker.position import Position
from lab.checking.history import Operation
from lab.torture.ledger import Ledger

_RANGE = re.compile(r"(\d+)-(\d+)(?: to \d+-(\d+))?")
_CUT_SHORT = "more ranges"
_NAMED_WITHIN_US = 5_000_000  # the primary looks every second, but may hang


@dataclass(frozen=True)
class Named:
    """The lost positions according to the lab. ``further``: the last position of each text that leaves out others, by
    where the log then ended.
    """

    positions: set[Position] = field(default_factory=set)
    further: dict[Position, Position] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[Mapping[str, str]]) -> "Named":
        """Read the events ``lost``."""
        named = cls()
        for event in events:
            positions = [
                Position(int(epoch), version)
                for epoch, first, last in _RANGE.findall(event["positions"])
                for version in range(int(first), int(last or first) + 1)
            ]
            named.positions.update(positions)
            if event["positions"].endswith(_CUT_SHORT):
                named.further[Position.parse(event["after"])] = max(positions)
        return named

    def has(self, position: Position, origin: Position) -> bool:
        return position in self.positions or (origin in self.further and position > self.further[origin])


@dataclass(frozen=True)
class Losses:
    """Acknowledged writes that the log lost: ``named`` by the lab; ``forgotten``, because the primary was killed before
    it could name them; or ``concealed``. ``alleged``: named positions that the log has always had.
    """

    named: list[Operation] = field(default_factory=list)
    forgotten: list[Operation] = field(default_factory=list)
    concealed: list[Operation] = field(default_factory=list)
    alleged: list[Position] = field(default_factory=list)

    @property
    def writes(self) -> list[Operation]:
        return [*self.named, *self.forgotten, *self.concealed]


def split(
    operations: Iterable[Operation], lost_at: Callable[[Position], object]
) -> tuple[list[Operation], list[Operation]]:
    """Return the operations that the final log accounts for, and those at positions that it lost, by ``lost_at``.

    A session whose write was lost, or who has read it, rightly finds later that it is missing.
    """
    kept: list[Operation] = []
    gone: list[Operation] = []
    for operation in operations:
        if operation.position is None or lost_at(operation.position) is None:
            kept.append(operation)
            continue
        gone.append(operation)
        if operation.kind == "write":  # an earlier attempt can be in the log of a server that is master again
            kept.append(replace(operation, outcome="unknown", position=None, version=0))
    return kept, gone


def weigh(
    kept: Iterable[Operation], gone: Iterable[Operation], ledger: Ledger, named: Named, kills_us: Iterable[int]
) -> Losses:
    """Sort the lost writes. ``kills_us``: when the primary was killed, which then forgets what it has acknowledged."""
    found = Losses(alleged=sorted(filter(ledger.has_always_had, named.positions)))
    seen_us = _first_seen_us(kept, ledger)
    kills_us = list(kills_us)
    for write in gone:
        cut = None if write.position is None else ledger.lost_at(write.position)
        if write.kind != "write" or write.position is None or cut is None:
            continue
        due_us = seen_us.get(cut.start, write.returned_us) + _NAMED_WITHIN_US
        if named.has(write.position, cut.origin):
            found.named.append(write)
        elif any(write.invoked_us <= kill_us <= due_us for kill_us in kills_us):
            found.forgotten.append(write)
        else:
            found.concealed.append(write)
    return found


def _first_seen_us(kept: Iterable[Operation], ledger: Ledger) -> dict[Position, int]:
    """Return when an operation first showed each epoch, or a later one."""
    found: dict[Position, int] = {}
    for operation in kept:
        for cut in ledger.cuts:
            if operation.position is not None and operation.position >= cut.start:
                found[cut.start] = min(operation.returned_us, found.get(cut.start, operation.returned_us))
    return found
