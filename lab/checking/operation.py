"""One operation of a history, and how it stands in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from broker.position import Position

Kind = Literal["write", "read", "final", "digest"]
Outcome = Literal["ok", "fail", "unknown"]
_KINDS: tuple[Kind, ...] = ("write", "read", "final", "digest")
_OUTCOMES: tuple[Outcome, ...] = ("ok", "fail", "unknown")


@dataclass(frozen=True, slots=True)
class Operation:
    """What one session did, or what a node held at the end.

    ``write`` has the position that it was given, ``read`` the position of the store that answered, and the version of
    the record in it, 0 where the key was missing. ``final`` is such a read from the primary after everything else, and
    ``digest`` is a node's digest at its position then. ``invoked_us`` and ``returned_us`` are microseconds by one clock
    for the whole history; ``waited_ms`` is what a read waited for its level, as the client service measured it.
    ``epoch`` is that of the record where it is known, and otherwise taken to be the store's: a log may go on, with the
    records that there are, in a later one.
    ``fail`` had no effect, ``unknown`` may have had one.
    """

    index: int
    session: int
    kind: Kind
    outcome: Outcome
    invoked_us: int
    returned_us: int
    key: str = ""
    value: str | None = None
    position: Position | None = None
    version: int = 0
    node: str = ""
    digest: str = ""
    waited_ms: float = 0.0
    epoch: int | None = None

    @property
    def seen(self) -> Position:
        """How new what it wrote or was shown is: the record's version, in the epoch of the store.

        A store of a later epoch shows nothing of an earlier one, and rightly so: everything there was dropped.
        """
        if self.position is None:
            raise ValueError(f"operation {self.index} has no position")
        if self.kind == "write":
            return self.position
        return Position(self.position.epoch if self.epoch is None else self.epoch, self.version)

    def as_json(self) -> dict[str, Any]:
        """The operation as a line of a file."""
        found: dict[str, Any] = {
            "index": self.index,
            "session": self.session,
            "kind": self.kind,
            "outcome": self.outcome,
            "invoked_us": self.invoked_us,
            "returned_us": self.returned_us,
            "key": self.key,
            "value": self.value,
            "position": None if self.position is None else str(self.position),
            "version": self.version,
            "node": self.node,
        }
        if self.digest:
            found["digest"] = self.digest
        if self.kind == "read":
            found["waited_ms"] = self.waited_ms
        if self.epoch is not None:
            found["epoch"] = self.epoch
        return found


def from_json(found: dict[str, Any]) -> Operation:
    """Read an operation. Raises ``ValueError`` with a sentence."""
    try:
        operation = Operation(**{**found, "position": found["position"] and Position.parse(found["position"])})
        numbers = (operation.index, operation.session, operation.invoked_us, operation.returned_us, operation.version)
        valid = operation.kind in _KINDS and operation.outcome in _OUTCOMES and all(type(n) is int for n in numbers)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"is not an operation: {error}") from None
    if not valid or operation.returned_us < operation.invoked_us:
        raise ValueError("is not an operation: kind, outcome or a number is not what it may be")
    if operation.outcome == "ok" and operation.position is None:
        raise ValueError("is not an operation: it is ok and has no position")
    return operation
