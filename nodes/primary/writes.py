"""Writes: append changes to the log."""

import time
from collections.abc import Callable
from typing import Any

from broker.entry import Operation
from broker.errors import LogError, LogRefused, WriteIdReused
from nodes.http.times import timestamp
from nodes.http.writing import WriteAnswer, WriteBody
from nodes.primary.errors import NoSuchKey, WriteFailed, outcome
from nodes.primary.parts import Parts
from nodes.runtime.gate import State
from nodes.runtime.tracing import Tracing

_REFUSED_SECONDS = 2.0  # how long a refusal counts unless a write is accepted


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
        self._metrics.writes.labels(outcome(error)).inc(count)
        if isinstance(error, LogRefused):
            self._refusal = (self._monotonic(), error)
