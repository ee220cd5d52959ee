"""One operation of a history, and how it stands in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, PlainValidator, TypeAdapter, ValidationError

from broker.position import Position

Kind = Literal["write", "read", "final", "digest"]
Outcome = Literal["ok", "fail", "unknown"]
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_SHOWN_MAX = 40


def _position(text: Any) -> Position | None:
    return None if text is None else Position.parse(str(text))


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

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    index: int
    session: int
    kind: Kind
    outcome: Outcome
    invoked_us: int
    returned_us: int
    key: str = ""
    value: str | None = None
    position: Annotated[Position | None, PlainValidator(_position)] = None
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


_ADAPTER = TypeAdapter(Operation)


def from_json(line: bytes) -> Operation:
    """Read an operation. Raises ``ValueError`` with a sentence that names the field, and what is allowed."""
    operation: Operation = parsed(_ADAPTER, line)
    if operation.returned_us < operation.invoked_us:
        raise ValueError("returned_us: before invoked_us")
    if operation.outcome == "ok" and operation.position is None:
        raise ValueError('position: missing, although outcome is "ok"')
    return operation


def parsed(adapter: TypeAdapter[Any], text: bytes) -> Any:
    """JSON as what the adapter reads. Raises ``ValueError`` with a sentence that names the field."""
    try:
        return adapter.validate_json(text)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:_SHOWN_MAX] for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {message}" if place else message) from None
