"""Writing: a change goes into the log, and its position to whoever waits for it."""

from __future__ import annotations

import time
from typing import Any

from broker.entry import Operation
from broker.errors import LogError, WriteIdReused
from broker.log import Appended, ReplicationLog
from nodes.http.problem import Problem, unavailable
from nodes.http.times import timestamp
from nodes.http.writing import WriteAnswer, WriteBody
from nodes.primary.acceptance import Acceptance
from nodes.primary.metrics import PrimaryMetrics
from nodes.runtime.gate import PositionGate, State
from nodes.runtime.tracing import Tracing


class Writes:
    """The write path of the primary."""

    def __init__(
        self,
        log: ReplicationLog,
        gate: PositionGate,
        acceptance: Acceptance,
        metrics: PrimaryMetrics,
        tracing: Tracing,
    ) -> None:
        self._log = log
        self._gate = gate
        self._acceptance = acceptance
        self._metrics = metrics
        self._tracing = tracing

    def set(self, body: WriteBody, write_id: str) -> WriteAnswer:
        """Set a key. Raises ``Problem`` when the log did not take the write."""
        appended = self._append("set", body.key, body.text, write_id)
        if appended is None:
            raise AssertionError("only a delete can find nothing to do")
        return _answer(appended, write_id, body.key, body.value)

    def delete(self, key: str, write_id: str) -> WriteAnswer:
        """Delete a key. Raises ``Problem`` 404, without a new version, where it is missing."""
        appended = self._append("delete", key, "", write_id)
        if appended is None:
            raise Problem(404, "no-such-key", "No such key", f"There is no key {key[:100]!r} to delete.")
        return _answer(appended, write_id, key, None)

    def _append(self, op: Operation, key: str, value: str, write_id: str) -> Appended | None:
        began = time.perf_counter()
        try:
            with self._tracing.sending() as traceparent:
                appended = self._log.append(op, key, value, write_id, traceparent)
                if appended is not None:
                    self._tracing.sent(appended.position)
        except WriteIdReused:
            raise
        except LogError as error:
            self._acceptance.failed(error)
            raise unavailable(error, write_id=write_id) from error
        self._metrics.write_seconds.observe(time.perf_counter() - began)
        if appended is not None:
            self._acceptance.acknowledged()
            self._gate.advance(State(appended.position, write_id, appended.at_us))
        return appended


def _answer(appended: Appended, write_id: str, key: str, value: Any) -> WriteAnswer:
    return {
        "version": appended.position.version,
        "position": str(appended.position),
        "write_id": write_id,
        "key": key,
        "value": value,
        "write_timestamp": timestamp(appended.at_us),
        "replication_started": True,
    }
