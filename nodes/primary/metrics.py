"""Metrics of the primary: writes, and each replica as seen from the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric as Family

from broker import lag
from broker.errors import LogError
from nodes.runtime.metrics import CHANGED, SECONDS_BUCKETS, Metric

if TYPE_CHECKING:  # the parts have the metrics below
    from nodes.primary.parts import Parts

_ROLE, _REPLICA = ("primary",), ("replica",)
# fmt: off
WRITES = Metric(Counter, "ec_writes_total", "writes by `result`: acknowledged, not_applied, unknown",
                _ROLE, ("result",))
LOST = Metric(Counter, "ec_lost_writes_total",
              "acknowledged writes that the log lacks since another server took over", _ROLE)
WRITE = Metric(Histogram, "ec_write_duration_seconds", "duration of a single write, as its caller sees it",
               _ROLE, (), SECONDS_BUCKETS)
VERSION = Metric(Gauge, "ec_primary_version", "last committed version", _ROLE)
APPLIED = Metric(Gauge, "ec_replica_applied_version", "last version the replica has applied", _ROLE, _REPLICA)
LAG_VERSIONS = Metric(Gauge, "ec_replica_lag_versions", "versions behind the log", _ROLE, _REPLICA)
LAG = Metric(Gauge, "ec_replica_lag_seconds",
             "age of the oldest unapplied write: 0 when idle, growing when stopped, absent when unknown",
             _ROLE, _REPLICA)
LAST_APPLIED = Metric(Gauge, "ec_replica_last_applied_timestamp_seconds",
                      "time of the replica's last apply; absent until its first one since startup", _ROLE, _REPLICA)
ACKNOWLEDGED = Metric(Gauge, "ec_replica_acknowledged_version", "last version up to which the replica has acknowledged",
                      _ROLE, _REPLICA)
DELAY = Metric(Gauge, "ec_configured_delay_seconds", "the configured delay", _ROLE, _REPLICA)
ACK_DELAY = Metric(Gauge, "ec_configured_ack_delay_seconds", "the configured delay from apply to acknowledgement",
                   _ROLE, _REPLICA)
PENDING = Metric(Gauge, "ec_pending_entries",
                 "entries delivered and not acknowledged: not due yet, or applied and unacknowledged", _ROLE, _REPLICA)
UNACKNOWLEDGED = Metric(Gauge, "ec_applied_unacknowledged_entries",
                        "entries applied and not acknowledged; absent when unknown", _ROLE, _REPLICA)
UNDELIVERED = Metric(Gauge, "ec_undelivered_entries", "entries not delivered yet", _ROLE, _REPLICA)
LOG_BYTES = Metric(Gauge, "ec_log_bytes", "memory used by the log in the log server", _ROLE)
LOG_MAX_BYTES = Metric(Gauge, "ec_log_max_bytes", "limit above which the oldest entries are dropped", _ROLE)
# fmt: on


class PrimaryMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.writes = WRITES.on(registry)
        self.acknowledged, *_ = map(self.writes.labels, ("acknowledged", "not_applied", "unknown"))
        self.lost = LOST.on(registry)
        self.write_seconds = WRITE.on(registry)
        self._changed = CHANGED.on(registry)

    def changed(self, kind: str, at_us: int, replica: str = "") -> None:
        self._changed.labels(replica, kind).set(at_us / 1e6)


@dataclass(eq=False)  # the registry keeps it as a key
class ReplicaCollector:
    """Gauges of the log and every replica, even stopped ones. While the log cannot be read they are absent, not 0."""

    _parts: Parts
    _memory: Callable[[], tuple[int, int] | None]  # bytes used by the log, and their limit

    def describe(self) -> list[Family]:
        return []  # without asking the log

    def collect(self) -> Iterator[Family]:
        try:
            version = self._parts.log.head().position.version
            members = self._parts.registered.members()
            settings = self._parts.registered.settings()
            lags = lag.observe(self._parts.log, members)
        except LogError:
            return
        yield VERSION.family(version)
        if (memory := self._memory()) is not None:
            yield from (LOG_BYTES.family(memory[0]), LOG_MAX_BYTES.family(memory[1]))
        behind = [(member.replica, lags[member.replica]) for member in members]
        yield by_replica(APPLIED, {name: found.applied for name, found in behind})
        yield by_replica(LAG_VERSIONS, {name: found.versions for name, found in behind})
        yield by_replica(LAG, {name: found.seconds for name, found in behind})
        yield by_replica(ACKNOWLEDGED, {name: found.acknowledged for name, found in behind})
        unacknowledged = {m.replica: self._parts.acknowledgements.unacknowledged(m) for m in members}
        yield by_replica(UNACKNOWLEDGED, {name: count for name, count in unacknowledged.items() if count is not None})
        yield by_replica(PENDING, {name: found.pending for name, found in behind})
        yield by_replica(UNDELIVERED, {name: found.undelivered for name, found in behind})
        yield by_replica(LAST_APPLIED, {m.replica: m.applied_at_us / 1e6 for m in members if m.applied_at_us})
        configured = [(name, settings[name]) for name, _ in behind if name in settings]
        yield by_replica(DELAY, {name: found.delay.mean_ms / 1000 for name, found in configured})
        yield by_replica(ACK_DELAY, {name: found.ack.mean_ms / 1000 for name, found in configured})


def by_replica(metric: Metric[Gauge], values: dict[str, float]) -> Family:
    family = metric.family()
    for replica, value in values.items():
        family.add_metric([replica], value)
    return family
