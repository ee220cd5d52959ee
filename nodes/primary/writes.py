"""Writes: append changes to the log."""

import time
from collections.abc import Callable
from typing import Any

from broker.errors import LogError, LogRefused, WriteIdReused
from broker.log import Appended, Change
from broker.position import Position
from nodes.http.times import timestamp
from nodes.http.writing import WriteAnswer, WriteBody
from nodes.primary.errors import NoSuchKey, WriteFailed, outcome
from nodes.primary.parts import Parts
from nodes.runtime.gate import State
from nodes.runtime.tracing import Tracing

_REFUSED_SECONDS = 2.0  # how long a refusal counts unless a write is accepted


class Writes:
    """The write path of the primary. Counts writes by their outcome. Thread-safe."""

    def __init__(
        self, parts: Parts, tracing: Tracing, monotonic: Callable[[], float], remember: Callable[[list[Position]], None]
    ) -> None:
        """``remember`` receives the position of each acknowledged write."""
        self._remember, self._copies = remember, parts.config.log_copies
        self.log, self._gate, self._metrics = parts.log, parts.gate, parts.metrics
        self._tracing, self._monotonic = tracing, monotonic
        self._refusal: tuple[float, LogRefused] | None = None

    def check(self) -> None:
        """Raise ``LogRefused`` if the log server refuses writes or has just done so, or another ``LogError``."""
        self.log.check()
        refusal = self._refusal
        if refusal is not None and self._monotonic() - refusal[0] < _REFUSED_SECONDS:
            raise refusal[1]

    def set(self, body: WriteBody, write_id: str, copies: int | None = None) -> WriteAnswer:
        """Set a key. ``copies``: as ``ReplicationLog.append``. Raises ``WriteFailed``, or ``WriteIdReused``."""
        return self._append(Change("set", body.key, body.text, write_id), body.value, copies)

    def delete(self, key: str, write_id: str, copies: int | None = None) -> WriteAnswer:
        """Delete a key. Raises ``NoSuchKey``, without a new version, or an exception of ``set``."""
        return self._append(Change("delete", key, "", write_id), None, copies)

    def append_many(self, changes: list[Change], copies: int | None) -> list[Appended | WriteIdReused | None]:
        """Append as ``ReplicationLog.append_many``, with the configured copies by default."""
        return self.log.append_many(changes, self._copies if copies is None else copies)

    def _append(self, change: Change, value: Any, copies: int | None) -> WriteAnswer:
        write_id, started = change.write_id, time.perf_counter()
        try:
            with self._tracing.sending() as traceparent:
                (appended,) = self.append_many([change._replace(traceparent=traceparent)], copies)
                if isinstance(appended, WriteIdReused):
                    raise appended
                if appended is not None:
                    self._tracing.sent(appended.position)
        except WriteIdReused:
            raise
        except LogError as error:
            self.failed(error)
            raise WriteFailed(error, write_id=write_id) from error
        self._metrics.write_seconds.observe(time.perf_counter() - started)
        if appended is None:
            raise NoSuchKey(f"There is no key {change.key[:100]!r} to delete")
        self.acknowledged([State(appended.position, write_id, appended.at_us)])
        return {
            "version": appended.position.version,
            "position": str(appended.position),
            "write_id": write_id,
            "key": change.key,
            "value": value,
            "write_timestamp": timestamp(appended.at_us),
            "replication_started": True,
        }

    def acknowledged(self, states: list[State]) -> None:
        if states:
            self._metrics.acknowledged.inc(len(states))
            self._refusal = None
            self._remember([state.position for state in states])
            self._gate.advance(max(states))

    def failed(self, error: LogError, count: int = 1) -> None:
        self._metrics.writes.labels(outcome(error)).inc(count)
        if isinstance(error, LogRefused):
            self._refusal = (self._monotonic(), error)
