"""One change as the log carries it."""

from __future__ import annotations

import json
from typing import Literal, NamedTuple

from broker.position import Position

Operation = Literal["set", "delete", "epoch"]
_SAMPLED = "13579bdf"  # the last digits of flags of which the lowest bit is set


class Entry(NamedTuple):
    """One entry of the replication log.

    ``op epoch`` begins an epoch: with an empty ``value`` one of an empty store, otherwise one that goes on from the
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

    @property
    def goes_on_from(self) -> Position | None:
        """Where an epoch that keeps the content goes on from; ``None`` for every other entry."""
        return Position.parse(json.loads(self.value)) if self.op == "epoch" and self.value else None

    @property
    def trace_id(self) -> str:
        """The trace that is recorded of the write; empty where none is."""
        return self.traceparent[3:35] if self.traceparent[-1:] in _SAMPLED else ""  # 00-<trace id>-<span id>-<flags>

    @property
    def size_bytes(self) -> int:
        """About what the entry weighs in memory: its texts, and a constant for the rest."""
        return len(self.key) + len(self.value) + 200


class Record(NamedTuple):
    """A key's current value in a store, and the write that put it there."""

    key: str
    value: str
    version: int
    write_id: str
    at_us: int
