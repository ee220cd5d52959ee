"""Sampling of traces: every one is recorded, up to a number a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes
from typing_extensions import override


class AtMostPerSecond(Sampler):
    """Records traces up to a rate and drops the rest, by a token bucket that holds those of one second.

    A trace is recorded as a whole or not at all. Without a bound a node under load would spend about as much time on
    its traces as on its requests. Thread-safe.
    """

    def __init__(self, per_second: int, monotonic: Callable[[], float]) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        self._left = float(per_second)
        self._filled_at = monotonic()
        self._lock = threading.Lock()

    @override
    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes) if self._take() else SamplingResult(Decision.DROP)

    @override
    def get_description(self) -> str:
        return f"at most {self._per_second} a second"

    def _take(self) -> bool:
        with self._lock:
            now = self._monotonic()
            self._left = min(self._per_second, self._left + (now - self._filled_at) * self._per_second)
            self._filled_at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True
