"""What the client measures."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Histogram

from nodes.http.level import LEVELS, Level
from nodes.runtime.metrics import SECONDS_BUCKETS


class ClientMetrics:
    """Reads by what they showed, and consistency windows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reads = Counter(
            "ec_reads", "Reads by whether they showed the newest write", ["replica", "result"], registry=registry
        )
        self.window_seconds = Histogram(
            "ec_consistency_window_seconds",
            "Write acknowledged to last replica observed; at its time-out where that did not happen",
            ["outcome"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        for outcome in ("converged", "timeout"):
            self.window_seconds.labels(outcome)
        self._level_reads = Counter(
            "ec_level_reads", "Reads at a level, by what became of them", ["level", "outcome"], registry=registry
        )
        self._wait_seconds = Histogram(
            "ec_read_wait_seconds",
            "How long a reader waited for an answer at this level",
            ["level"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        for level in LEVELS:
            self._wait_seconds.labels(level)
            for outcome in ("fresh", "stale", "unknown", "timeout", "refused", "error"):
                self._level_reads.labels(level, outcome)
        violations = Counter(
            "ec_session_violations",
            "Reads that were served by a store older than what the session had written or been shown",
            ["guarantee"],
            registry=registry,
        )
        self._lost_own_write = violations.labels("read_your_writes")
        self._went_back = violations.labels("monotonic_reads")

    def read_at_level(self, level: Level, *, stale: bool | None, waited_ms: float) -> None:
        """Count an answered read; ``stale`` is ``None`` where nobody could tell."""
        outcome = "unknown" if stale is None else "stale" if stale else "fresh"
        self._level_reads.labels(level, outcome).inc()
        self._wait_seconds.labels(level).observe(waited_ms / 1000)

    def read_refused(self, level: Level, *, timed_out: bool) -> None:
        """Count a read that could not be had at its level, in time or at all."""
        self._level_reads.labels(level, "timeout" if timed_out else "refused").inc()

    def read_failed(self, level: Level) -> None:
        """Count a read that no node answered."""
        self._level_reads.labels(level, "error").inc()

    def shown(self, *, went_back: bool, lost_own_write: bool) -> None:
        """Count what a read meant to its session."""
        if went_back:
            self._went_back.inc()
        if lost_own_write:
            self._lost_own_write.inc()

    def know(self, replicas: Collection[str]) -> None:
        """Count these replicas' reads from 0, and forget all others.

        A series that started with a replica's first read would hide that read, and one of a replica that left would
        stay for good.
        """
        for replica in replicas:
            for result in ("fresh", "stale", "error"):
                self.reads.labels(replica, result)
        counted = {sample.labels["replica"] for metric in self.reads.collect() for sample in metric.samples}
        for replica in counted.difference(replicas):
            self.reads.remove_by_labels({"replica": replica})
