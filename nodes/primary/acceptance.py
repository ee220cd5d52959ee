"""Whether writes can be taken, and what became of those that came."""

from __future__ import annotations

from collections.abc import Callable

from broker.errors import LogError, LogRefused
from broker.log import ReplicationLog
from nodes.http.problem import outcome_of
from nodes.primary.metrics import PrimaryMetrics

_REFUSED_SECONDS = 2.0  # how long a refusal speaks for the present where no write has been taken since


class Acceptance:
    """Counts writes by their outcome, and says whether the next one would be taken. Thread-safe."""

    def __init__(self, log: ReplicationLog, metrics: PrimaryMetrics, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._metrics = metrics
        self._monotonic = monotonic
        self._refusal: tuple[float, LogRefused] | None = None

    def acknowledged(self, count: int = 1) -> None:
        """Count writes that were taken."""
        self._metrics.acknowledged.inc(count)
        self._refusal = None

    def failed(self, error: LogError, count: int = 1) -> None:
        """Count writes that were not, or nobody knows."""
        self._metrics.writes.labels(outcome_of(error)).inc(count)
        if isinstance(error, LogRefused):
            self._refusal = (self._monotonic(), error)

    def require(self) -> None:
        """Raises ``LogRefused`` where the log server refuses writes, or has just done so; or another ``LogError``."""
        self._log.check()
        refusal = self._refusal
        if refusal is not None and self._monotonic() - refusal[0] < _REFUSED_SECONDS:
            raise refusal[1]
