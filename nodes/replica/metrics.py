"""What a replica measures of its own work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from broker.entry import Entry
from nodes.runtime.distribution import Distribution
from nodes.runtime.metrics import LATENESS_BUCKETS, SECONDS_BUCKETS


class ReplicaMetrics:
    """Counters and histograms of one replica; every series carries its id."""

    def __init__(self, registry: CollectorRegistry, replica: str, faults: Iterable[str] = ()) -> None:
        """``faults``: the names of what can be made wrong."""
        labels = {"replica": replica}
        self._delay = Distribution("ec_replication_delay_seconds", "Commit to apply", labels, SECONDS_BUCKETS)
        self._lateness = Distribution("ec_apply_lateness_seconds", "Due to applied", labels, LATENESS_BUCKETS)
        registry.register(self._delay)
        registry.register(self._lateness)
        applied = Counter("ec_applied", "Entries by what became of them", ["replica", "result"], registry=registry)
        redeliveries = Counter(
            "ec_redeliveries",
            "Entries delivered again, after a restart or a lost connection",
            ["replica"],
            registry=registry,
        )
        self._resyncs = Counter(
            "ec_resyncs", "Times the store was replaced by a snapshot", ["replica", "reason"], registry=registry
        )
        self._fault = Gauge("ec_fault_active", "Whether a fault is in force", ["replica", "fault"], registry=registry)
        self._changed_at = Gauge(
            "ec_config_change_timestamp_seconds", "When somebody changed this", ["replica", "kind"], registry=registry
        )
        for fault in faults:
            self._fault.labels(replica, fault)
        self._diverged = Gauge(
            "ec_replica_diverged",
            "Whether the content differed from the primary's at the same position when last compared",
            ["replica"],
            registry=registry,
        )  # absent until the first comparison: unknown is not 0
        self._replica = replica
        self._applied = applied.labels(replica, "applied")
        self._duplicate = applied.labels(replica, "duplicate")
        self._error = applied.labels(replica, "error")
        self._redelivered = redeliveries.labels(replica)
        for reason in ("gap", "log_rolled_back", "other_history", "requested"):
            self._resyncs.labels(replica, reason)

    def applied(self, due: Sequence[tuple[Entry, int]], applied_us: int) -> None:
        """Count applied entries, each with when it was due, their delay and their lateness."""
        self._applied.inc(len(due))
        changes = [(entry, due_us) for entry, due_us in due if entry.op != "epoch"]
        self._delay.observe(
            [applied_us - entry.at_us for entry, _ in changes], [entry.trace_id for entry, _ in changes]
        )
        self._lateness.observe([applied_us - due_us for _, due_us in changes])

    def duplicate(self) -> None:
        """Count an entry that came again after it had been applied."""
        self._duplicate.inc()

    def failed(self) -> None:
        """Count an attempt to apply that the store refused."""
        self._error.inc()

    def redelivered(self) -> None:
        """Count an entry that was delivered again."""
        self._redelivered.inc()

    def fault(self, name: str, *, active: bool, at_us: int) -> None:
        """Say that a fault began or ended, or happened, and when by the log's clock."""
        self._fault.labels(self._replica, name).set(active)
        self._changed_at.labels(self._replica, "fault").set(at_us / 1e6)

    def compared(self, *, diverged: bool) -> None:
        """Say what comparing the content with the primary's has shown."""
        self._diverged.labels(self._replica).set(diverged)

    def resynced(self, reason: str) -> None:
        """Count a snapshot."""
        self._resyncs.labels(self._replica, reason).inc()
