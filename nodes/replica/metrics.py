"""Metrics of a replica's own work; every series carries its id."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.entry import Entry, trace_id
from nodes.replica.queues import Unacknowledged
from nodes.runtime.metrics import CHANGED, LATENESS_BUCKETS, SECONDS_BUCKETS, Distribution, Metric

_ROLE = _REPLICA = ("replica",)
DELAY = Metric(Histogram, "ec_replication_delay_seconds", "time from commit to apply", _ROLE, _REPLICA, SECONDS_BUCKETS)
_LATENESS = Metric(
    Histogram,
    "ec_apply_lateness_seconds",
    "time from due to applied: the lab's own error",
    _ROLE,
    _REPLICA,
    LATENESS_BUCKETS,
)
_ACKNOWLEDGED = Metric(
    Histogram, "ec_acknowledgement_delay_seconds", "time from commit to acknowledged", _ROLE, _REPLICA, SECONDS_BUCKETS
)
_APPLIED = Metric(
    Counter, "ec_applied_total", "entries by `result`: applied, duplicate, error", _ROLE, ("replica", "result")
)
_REDELIVERIES = Metric(Counter, "ec_redeliveries_total", "entries delivered again", _ROLE, _REPLICA)
_RESYNCS = Metric(Counter, "ec_resyncs_total", "snapshots installed, by `reason`", _ROLE, ("replica", "reason"))
_FAULT = Metric(Gauge, "ec_fault_active", "1 while an injected `fault` is active", _ROLE, ("replica", "fault"))
_DIVERGED = Metric(
    Gauge,
    "ec_replica_diverged",
    "1 if the content differed from the primary's at the same position in the last comparison; absent before the "
    "first one",
    _ROLE,
    _REPLICA,
)


class ReplicaMetrics:
    def __init__(self, registry: CollectorRegistry, replica: str) -> None:
        self._replica = replica
        self._delay = Distribution(DELAY, replica)
        self._lateness = Distribution(_LATENESS, replica)
        self._acknowledged = Distribution(_ACKNOWLEDGED, replica)
        for distribution in (self._delay, self._lateness, self._acknowledged):
            registry.register(distribution)
        results = _APPLIED.on(registry)
        self._applied, self._duplicate, self._error = (
            results.labels(replica, result) for result in ("applied", "duplicate", "error")
        )
        self._redelivered = _REDELIVERIES.on(registry).labels(replica)
        self._resyncs = _RESYNCS.on(registry)
        for reason in ("gap", "log_rolled_back", "other_history", "requested"):
            self._resyncs.labels(replica, reason)
        self._fault = _FAULT.on(registry)
        self._changed_at = CHANGED.on(registry)
        self._diverged = _DIVERGED.on(registry)

    def applied(self, due: Sequence[tuple[Entry, int]], applied_us: int) -> None:
        """Count applied entries, each with its due time; observe their delay and lateness."""
        self._applied.inc(len(due))
        changes = [pair for pair in due if pair[0].op != "epoch"]
        delays_us = [applied_us - entry.at_us for entry, _ in changes]
        self._delay.observe(delays_us, [trace_id(entry.traceparent) for entry, _ in changes])
        self._lateness.observe([applied_us - due_us for _, due_us in changes])

    def acknowledged(self, entries: Sequence[Unacknowledged], acknowledged_us: int) -> None:
        delays_us = [acknowledged_us - entry.published_us for entry in entries]
        self._acknowledged.observe(delays_us, [trace_id(entry.traceparent) for entry in entries])

    def failed(self) -> None:
        self._error.inc()

    def redelivered(self, count: int, *, applied: int) -> None:
        """Count entries that were delivered again; ``applied`` of them had been applied before."""
        self._redelivered.inc(count)
        self._duplicate.inc(applied)

    def declare_fault(self, name: str) -> None:
        self._fault.labels(self._replica, name)

    def fault(self, name: str, *, active: bool, at_us: int) -> None:
        """Record that a fault started or ended, at ``at_us`` by the log's clock."""
        self._fault.labels(self._replica, name).set(active)
        self._changed_at.labels(self._replica, "fault").set(at_us / 1e6)

    def compared(self, *, diverged: bool) -> None:
        self._diverged.labels(self._replica).set(diverged)

    def resynced(self, reason: str) -> None:
        self._resyncs.labels(self._replica, reason).inc()
