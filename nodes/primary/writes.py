"""Writes: append changes to the log, and wait for replicas if the caller requests acknowledgements."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from broker.entry import Operation
from broker.errors import LogError, LogRefused, NotApplied, WriteIdReused
from broker.position import Position
from nodes.http.times import timestamp
from nodes.http.writing import AcksQuery, WriteAnswer, WriteBody
from nodes.primary.parts import Parts
from nodes.runtime.gate import State
from nodes.runtime.tracing import Tracing

_REFUSED_SECONDS = 2.0  # how long a refusal counts unless a write is accepted


class WriteFailed(Exception):
    """Raised when the log did not accept a write; ``extra`` has ``outcome``: ``not_applied`` or ``unknown``."""

    def __init__(self, cause: LogError, **extra: str) -> None:
        super().__init__(str(cause))
        self.extra = {"outcome": _outcome(cause), **extra}


class NoSuchKey(Exception):
    """Raised for a delete of a missing key."""


class TooFewReplicas(Exception):
    """Raised before anything is written if more acknowledgements are required than replicas are registered."""


class Writes:
    """The write path of the primary. Counts writes by their outcome. Thread-safe."""

    def __init__(self, parts: Parts, tracing: Tracing, monotonic: Callable[[], float]) -> None:
        self.log, self._gate, self._metrics = parts.log, parts.gate, parts.metrics
        self._tracing, self._monotonic = tracing, monotonic
        self._refusal: tuple[float, LogRefused] | None = None

    def check(self) -> None:
        """Raise ``LogRefused`` if the log server refuses writes or has just done so, or another ``LogError``."""
        self.log.check()
        refusal = self._refusal
        if refusal is not None and self._monotonic() - refusal[0] < _REFUSED_SECONDS:
            raise refusal[1]

    def set(self, body: WriteBody, write_id: str) -> WriteAnswer:
        """Set a key. Raises ``WriteFailed``, or ``WriteIdReused``."""
        return self._append("set", body.key, body.text, write_id, body.value)

    def delete(self, key: str, write_id: str) -> WriteAnswer:
        """Delete a key. Raises ``NoSuchKey``, without a new version, or an exception of ``set``."""
        return self._append("delete", key, "", write_id, None)

    def _append(self, op: Operation, key: str, text: str, write_id: str, value: Any) -> WriteAnswer:
        started = time.perf_counter()
        try:
            with self._tracing.sending() as traceparent:
                appended = self.log.append(op, key, text, write_id, traceparent)
                if appended is not None:
                    self._tracing.sent(appended.position)
        except WriteIdReused:
            raise
        except LogError as error:
            self.failed(error)
            raise WriteFailed(error, write_id=write_id) from error
        self._metrics.write_seconds.observe(time.perf_counter() - started)
        if appended is None:
            raise NoSuchKey(f"There is no key {key[:100]!r} to delete")
        self.acknowledged([State(appended.position, write_id, appended.at_us)])
        return {
            "version": appended.position.version,
            "position": str(appended.position),
            "write_id": write_id,
            "key": key,
            "value": value,
            "write_timestamp": timestamp(appended.at_us),
            "replication_started": True,
        }

    def acknowledged(self, states: list[State]) -> None:
        if states:
            self._metrics.acknowledged.inc(len(states))
            self._refusal = None
            self._gate.advance(max(states))

    def failed(self, error: LogError, count: int = 1) -> None:
        self._metrics.writes.labels(_outcome(error)).inc(count)
        if isinstance(error, LogRefused):
            self._refusal = (self._monotonic(), error)


@dataclass
class Acks:
    """Writes that return once enough replicas have acknowledged them."""

    _parts: Parts

    @contextmanager
    def required(self, query: AcksQuery) -> Iterator[Callable[[WriteAnswer], WriteAnswer]]:
        """Return how to complete the write: wait until enough replicas have acknowledged it or the time is up.

        Raises ``TooFewReplicas``, ``TooManyWaiters`` or ``WriteFailed`` before anything is written.
        """
        if query.acks == 0:
            yield lambda written: written
            return
        try:
            members = {member.replica for member in self._parts.registered.members()}
        except LogError as error:
            raise WriteFailed(error, outcome="not_applied") from error
        if query.acks > len(members):
            raise TooFewReplicas(f"acks: {query.acks} replicas are required, but {len(members)} are registered")
        acknowledgements = self._parts.acknowledgements

        def complete(written: WriteAnswer) -> WriteAnswer:
            position = Position.parse(written["position"])
            by = acknowledgements.wait(position, members, query.acks, query.timeout_ms / 1000)
            return {**written, "acks_reached": len(by), "acknowledged_by": by}

        with acknowledgements.places.one():
            yield complete


def _outcome(error: LogError) -> str:
    return "not_applied" if isinstance(error, NotApplied) else "unknown"
