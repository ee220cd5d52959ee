"""What the primary measures: writes, and each replica from the log's point of view."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from broker import lag
from broker.errors import LogError
from broker.log import ReplicationLog
from broker.registry import Registry
from nodes.primary.retention import Retention
from nodes.runtime.metrics import SECONDS_BUCKETS

_REPLICA_GAUGES = {
    "ec_replica_applied_version": "last version that the replica has applied",
    "ec_replica_lag_versions": "versions that the replica is behind the log",
    "ec_replica_lag_seconds": "age of the oldest write that the replica has not applied; 0 when there is none",
    "ec_replica_last_applied_timestamp_seconds": "when the replica last applied something, by the log's clock",
    "ec_pending_entries": "entries delivered to the replica and not acknowledged",
    "ec_undelivered_entries": "entries that the replica has not been given yet",
    "ec_configured_delay_seconds": "the replica's delay as configured (mean of the model)",
}


class PrimaryMetrics:
    """Counters and histograms of the write path."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.writes = Counter("ec_writes_total", "Writes by what became of them", ["result"], registry=registry)
        for result in ("acknowledged", "not_applied", "unknown"):
            self.writes.labels(result)
        self.acknowledged = self.writes.labels("acknowledged")
        self.write_seconds = Histogram(
            "ec_write_duration_seconds", "A write as its caller sees it", buckets=SECONDS_BUCKETS, registry=registry
        )
        self._changed = Gauge(
            "ec_config_change_timestamp_seconds",
            "When the lab was last changed by somebody: kind delay, of one replica, or reset",
            ["replica", "kind"],
            registry=registry,
        )

    def changed(self, kind: str, at_us: int, replica: str = "") -> None:
        """Remember when somebody changed the lab."""
        self._changed.labels(replica, kind).set(at_us / 1e6)


class ReplicaCollector:
    """Gauges of every registered replica, read from the log when they are asked for.

    They are the primary's to export, so that they go on, and grow, while a replica is stopped. While the log cannot be
    read they are absent: unknown is not 0.
    """

    def __init__(self, log: ReplicationLog, registered: Registry, retention: Retention) -> None:
        self._log = log
        self._registered = registered
        self._retention = retention

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: what is there depends on the log."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Observe the log once."""
        try:
            version = self._log.head().position.version
            members = self._registered.members()
            settings = self._registered.settings()
            lags = lag.observe(self._log, members)
        except LogError:
            return
        yield GaugeMetricFamily("ec_primary_version", "Last committed version", value=version)
        if (memory := self._retention.memory) is not None:
            yield GaugeMetricFamily("ec_log_bytes", "Memory that the log takes", value=memory.log_bytes)
            bound_bytes = self._retention.bound_bytes(memory)
            yield GaugeMetricFamily("ec_log_max_bytes", "Memory that the log may take", value=bound_bytes)
        gauges = {name: GaugeMetricFamily(name, doc, labels=["replica"]) for name, doc in _REPLICA_GAUGES.items()}
        for member in members:
            behind = lags[member.replica]
            values = {
                "ec_replica_applied_version": max(0, version - behind.versions),
                "ec_replica_lag_versions": behind.versions,
                "ec_replica_lag_seconds": behind.seconds,
                "ec_pending_entries": behind.pending,
                "ec_undelivered_entries": behind.undelivered,
            }
            if member.applied_at_us:
                values["ec_replica_last_applied_timestamp_seconds"] = member.applied_at_us / 1e6
            if member.replica in settings:
                values["ec_configured_delay_seconds"] = settings[member.replica].delay.mean_ms / 1000
            for name, value in values.items():
                gauges[name].add_metric([member.replica], value)
        yield from gauges.values()
