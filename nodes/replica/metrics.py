"""Metrics of a replica's own work; every series carries its id."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from broker.entry import Entry
from nodes.runtime.distribution import Distribution
from nodes.runtime.metrics import LATENESS_BUCKETS, SECONDS_BUCKETS


class ReplicaMetrics:
    def __init__(self, registry: CollectorRegistry, replica: str) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ["replica", *labels], registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, ["replica", *labels], registry=registry)

        own = {"replica": replica}
        self._replica = replica
        self._delay = Distribution("ec_replication_delay_seconds", "Commit to apply", own, SECONDS_BUCKETS)
        self._lateness = Distribution("ec_apply_lateness_seconds", "Due to applied", own, LATENESS_BUCKETS)
        registry.register(self._delay)
        registry.register(self._lateness)
        results = counter("ec_applied", "Entries by result", "result")
        self._applied, self._duplicate, self._error = (
            results.labels(replica, result) for result in ("applied", "duplicate", "error")
        )
        redelivered = "Entries delivered again, after a restart or a lost connection"
        self._redelivered = counter("ec_redeliveries", redelivered).labels(replica)
        self._resyncs = counter("ec_resyncs", "Times the store was replaced by a snapshot", "reason")
        for reason in ("gap", "log_rolled_back", "other_history", "requested"):
            self._resyncs.labels(replica, reason)
        self._fault = gauge("ec_fault_active", "Whether a fault is active", "fault")
        self._changed_at = gauge("ec_config_change_timestamp_seconds", "Time of the last change", "kind")
        # Absent until the first comparison: unknown is not 0.
        compared = "Whether the content differed from the primary's at the same position when last compared"
        self._diverged = gauge("ec_replica_diverged", compared)

    def applied(self, due: Sequence[tuple[Entry, int]], applied_us: int) -> None:
        """Count applied entries, each with its due time, their delay and their lateness."""
        self._applied.inc(len(due))
        changes = [(entry, due_us) for entry, due_us in due if entry.op != "epoch"]
        delays_us = [applied_us - entry.at_us for entry, _ in changes]
        self._delay.observe(delays_us, [entry.trace_id for entry, _ in changes])
        self._lateness.observe([applied_us - due_us for _, due_us in changes])

    def failed(self) -> None:
        self._error.inc()

    def redelivered(self, count: int, *, applied: int) -> None:
        """Count entries that were delivered again, ``applied`` of which had been applied before."""
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
