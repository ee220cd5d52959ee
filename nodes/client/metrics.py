"""What the client measures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from nodes.metrics import SECONDS_BUCKETS


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

    def know(self, replica: str) -> None:
        """Count this replica's reads from 0: a series that begins with its first read would hide that read."""
        for result in ("fresh", "stale", "error"):
            self.reads.labels(replica, result)
