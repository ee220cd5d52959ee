"""Traces: always passed through the log; recorded and exported only if an OTLP endpoint is configured."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from broker.entry import Entry
from broker.position import Position
from nodes.runtime.caller import TRACEPARENT
from nodes.runtime.config import NodeConfig

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Acknowledged(Protocol):
    """An acknowledged entry; ``at_us``: when it was applied."""

    @property
    def position(self) -> Position: ...
    @property
    def at_us(self) -> int: ...
    @property
    def traceparent(self) -> str: ...


class Tracing:
    """Records nothing, but forwards a caller's trace context unchanged to the log and to other nodes."""

    def install(self, app: Any) -> None:
        """Trace the requests of this Flask app."""

    @contextmanager
    def sending(self) -> Iterator[str]:
        """Trace an append to the log: yield the ``traceparent`` of the entry, or an empty text."""
        yield self.outgoing().get("traceparent", "")

    def sent(self, position: Position) -> None:
        """Record the position of the entry in the log, during ``sending``."""

    def processed(self, due: Sequence[tuple[Entry, int]], started_us: int, applied_us: int) -> None:
        """Record that a replica has applied entries, each with its due time by the log's clock."""

    def acknowledged(self, entries: Sequence[Acknowledged], acknowledged_us: int) -> None:
        """Record that a replica has acknowledged entries, from the time that it had applied them."""

    def outgoing(self) -> dict[str, str]:
        given = TRACEPARENT.get()
        return {"traceparent": given} if _TRACEPARENT.fullmatch(given) else {}

    def flush(self) -> None:
        """Export recorded spans, or give up within a second."""


def make(config: NodeConfig) -> Tracing:
    if not config.tracing:
        return Tracing()
    from nodes.runtime.recording import RecordedTracing

    return RecordedTracing(config)
