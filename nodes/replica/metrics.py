"""What a replica measures of its own work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.entry import Entry
from nodes.runtime.metrics import CHANGED, LATENESS_BUCKETS, SECONDS_BUCKETS, Distribution, Metric

_ROLE = _REPLICA = ("replica",)
_DELAY = Metric(Histogram, "ec_replication_delay_seconds", "commit to apply", _ROLE, _REPLICA, SECONDS_BUCKETS)
_LATENESS = Metric(
    Histogram, "ec_apply_lateness_seconds", "due to applied: the lab's own error", _ROLE, _REPLICA, LATENESS_BUCKETS
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
    "1 if the content differed from the primary's at the same position when last compared; absent before that",
    _ROLE,
    _REPLICA,
)


class ReplicaMetrics:
    """Counters and histograms of one replica; every series carries its id."""

    def __init__(self, registry: CollectorRegistry, replica: str, faults: Iterable[str] = ()) -> None:
        """``faults``: the names of those that can be injected."""
        self._delay = Distribution(_DELAY, replica)
        self._lateness = Distribution(_LATENESS, replica)
        registry.register(self._delay)
        registry.register(self._lateness)
        applied = _APPLIED.on(registry)
        self._resyncs = _RESYNCS.on(registry)
        self._fault = _FAULT.on(registry)
        self._changed_at = CHANGED.on(registry)
        for fault in faults:
            self._fault.labels(replica, fault)
        self._diverged = _DIVERGED.on(registry)
        self._replica = replica
        self._applied = applied.labels(replica, "applied")
        self._duplicate = applied.labels(replica, "duplicate")
        self._error = applied.labels(replica, "error")
        self._redelivered = _REDELIVERIES.on(registry).labels(replica)
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
