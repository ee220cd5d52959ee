"""One change as the log carries it, and as a store keeps it."""

from __future__ import annotations

import json
from typing import Literal, NamedTuple, cast, get_args

from broker.position import Position

Operation = Literal["set", "delete", "epoch"]
Raw = list[tuple[str, dict[str, str]]]  # stream IDs and fields, as redis-py returns them
_OPERATIONS = get_args(Operation)
_FIELDS = {"op", "key", "value", "write_id", "at", "traceparent"}
_SAMPLED = "13579bdf"  # the last digits of flags whose lowest bit is set


class Entry(NamedTuple):
    """One entry of the replication log.

    ``op epoch`` starts an epoch: with an empty ``value`` one with an empty store, otherwise one that continues from the
    position in ``value``, with the content that was there.

    ``value`` is compact JSON text, empty for ``delete``; ``at_us`` is the publish time in microseconds since
    1970 by the log server's clock; ``traceparent`` is a W3C trace context or empty.
    """

    position: Position
    op: Operation
    key: str
    value: str
    write_id: str
    at_us: int
    traceparent: str = ""

    @classmethod
    def of_stream(cls, name: str, fields: dict[str, str]) -> Entry:
        """Return the entry that has this stream ID and these fields, which must satisfy ``is_own``."""
        op = cast("Operation", fields["op"])
        texts = fields["key"], fields["value"], fields["write_id"]
        return cls(Position.of_entry(name), op, *texts, int(fields["at"]), fields["traceparent"])

    @property
    def goes_on_from(self) -> Position | None:
        """The position from which an epoch that keeps the content continues; ``None`` for every other entry."""
        return Position.parse(json.loads(self.value)) if self.op == "epoch" and self.value else None

    @property
    def trace_id(self) -> str:
        """The recorded trace of the write, or an empty string."""
        return self.traceparent[3:35] if self.traceparent[-1:] in _SAMPLED else ""  # 00-<trace id>-<span id>-<flags>

    @property
    def size_bytes(self) -> int:
        """The approximate size in memory: the texts, and a constant for the rest."""
        return len(self.key) + len(self.value) + 200


class Record(NamedTuple):
    """A key's current value in a store, and the write that set it."""

    key: str
    value: str
    version: int
    write_id: str
    at_us: int


def is_own(fields: dict[str, str]) -> bool:
    """Return whether the lab added this stream entry; other programs can add entries too."""
    return fields.keys() >= _FIELDS and fields["op"] in _OPERATIONS and fields["at"].isdecimal()


def own_entries(found: Raw) -> list[Entry]:
    return [Entry.of_stream(name, fields) for name, fields in found if is_own(fields)]
