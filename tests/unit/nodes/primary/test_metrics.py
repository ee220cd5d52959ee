"""The primary's metrics about replicas and changes."""

from typing import Any

import pytest

from nodes.primary.delays import DelayBody
from nodes.primary.metrics import ReplicaCollector
from tests.support.primary import Bench


def test_nothing_is_exported_about_replicas_while_the_log_cannot_be_read(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    collector = ReplicaCollector(bench.parts, bench.retention.usage)
    assert list(collector.collect()) == []
    bench.upkeep()
    assert "ec_replica_lag_seconds" in {family.name for family in collector.collect()}


def test_the_time_of_the_last_apply_is_absent_while_unknown(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.replica("a", 0)
    bench.registry.register(ReplicaCollector(bench.parts, bench.retention.usage))
    labels = {"replica": "a"}
    assert bench.registry.get_sample_value("ec_replica_lag_seconds", labels) == 0
    assert bench.registry.get_sample_value("ec_replica_last_applied_timestamp_seconds", labels) is None


def test_the_time_of_the_last_change_is_exported(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    bench.replica("lab14-replica1", 0)
    bench.delays.change(DelayBody(replica="lab14-replica1", delay_ms=7))
    bench.primary.reset()
    name, now = "ec_config_change_timestamp_seconds", bench.now_us / 1e6
    assert bench.registry.get_sample_value(name, {"replica": "lab14-replica1", "kind": "delay"}) == now
    assert bench.registry.get_sample_value(name, {"replica": "", "kind": "reset"}) == pytest.approx(now)
