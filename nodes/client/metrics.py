"""Metrics of the client."""

from collections.abc import Collection
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram

from nodes.http.level import LEVELS, Level
from nodes.runtime.metrics import SECONDS_BUCKETS, Metric

_counter = partial(Metric[Counter], Counter, roles=("client",))
_histogram = partial(Metric[Histogram], Histogram, roles=("client",), buckets=SECONDS_BUCKETS)
_READS = _counter("ec_reads_total", "reads by `result`: fresh, stale, error", labels=("replica", "result"))
_LEVEL_READS = _counter(
    "ec_level_reads_total",
    "reads at a consistency level, by `level` and `outcome`: fresh, stale, unknown, timeout, refused, error",
    labels=("level", "outcome"),
)
_WAIT = _histogram("ec_read_wait_seconds", "time a reader waited for its response, by `level`", labels=("level",))
_VIOLATIONS = _counter(
    "ec_session_violations_total",
    "reads served by a store older than what their session wrote (`guarantee` read_your_writes) or read "
    "(monotonic_reads)",
    labels=("guarantee",),
)
WINDOW = _histogram(
    "ec_consistency_window_seconds",
    "time from a write to its apply on the last replica, by `outcome`: converged, timeout",
    labels=("outcome",),
)


class ClientMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.reads = _READS.on(registry)
        self.window_seconds = WINDOW.on(registry)
        for outcome in ("converged", "timeout"):
            self.window_seconds.labels(outcome)
        self._level_reads = _LEVEL_READS.on(registry)
        self._wait_seconds = _WAIT.on(registry)
        for level in LEVELS:
            self._wait_seconds.labels(level)
            for outcome in ("fresh", "stale", "unknown", "timeout", "refused", "error"):
                self._level_reads.labels(level, outcome)
        violations = _VIOLATIONS.on(registry)
        self._lost_own_write = violations.labels("read_your_writes")
        self._went_back = violations.labels("monotonic_reads")

    def level_read(self, level: Level, outcome: str, waited_ms: float | None = None) -> None:
        self._level_reads.labels(level, outcome).inc()
        if waited_ms is not None:
            self._wait_seconds.labels(level).observe(waited_ms / 1000)

    def shown(self, *, went_back: bool, lost_own_write: bool) -> None:
        self._went_back.inc(went_back)
        self._lost_own_write.inc(lost_own_write)

    def know(self, replicas: Collection[str]) -> None:
        """Export the reads of these replicas only, starting at 0: a later start would hide the first read."""
        for replica in replicas:
            for result in ("fresh", "stale", "error"):
                self.reads.labels(replica, result)
        counted = {sample.labels["replica"] for metric in self.reads.collect() for sample in metric.samples}
        for replica in counted.difference(replicas):
            self.reads.remove_by_labels({"replica": replica})
