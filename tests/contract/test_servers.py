"""The groups of real servers that other tests fail over: Sentinel and Cluster do what those tests take for granted."""

import pytest

from tests.support.cluster import ClusterServers
from tests.support.logserver import Server
from tests.support.sentinel import SentinelServers
from tests.support.until import until


def test_a_killed_master_is_replaced_and_comes_back_as_a_replica(sentinel_servers: SentinelServers) -> None:
    first = sentinel_servers.master()
    first.client.set("k", "v")
    until(lambda: all(one.client.get("k") == "v" for one in sentinel_servers.replicas()))
    first.kill()
    second = sentinel_servers.wait_for_master(first)
    assert second.client.get("k") == "v"
    sentinel_servers.restart(first)
    sentinel_servers.wait_until_settled()
    assert sentinel_servers.master() is second


@pytest.mark.timeout(120)
def test_a_failover_and_a_failback_by_command(sentinel_servers: SentinelServers) -> None:
    first = sentinel_servers.master()
    assert sentinel_servers.failover_and_back() is first
    sentinel_servers.wait_until_settled()
    assert first.is_master()


def test_an_isolated_master_takes_writes_until_it_is_healed(sentinel_servers: SentinelServers) -> None:
    first = sentinel_servers.master()
    sentinel_servers.isolate(first)
    second = sentinel_servers.wait_for_master(first)
    first.client.set("k", "isolated")
    assert second.client.get("k") is None
    sentinel_servers.heal(first)
    sentinel_servers.wait_until_settled()
    assert first.client.get("k") is None


def test_a_clusters_owner_is_failed_over_and_killed(cluster_servers: ClusterServers) -> None:
    first = cluster_servers.owner()
    first.client.set("{lab14}:k", "v")
    second = cluster_servers.failover()
    assert (second is first, second.client.get("{lab14}:k")) == (False, "v")
    cluster_servers.wait_until_settled()
    second.kill()
    assert cluster_servers.wait_for_owner(second) is first
    second.start()
    cluster_servers.wait_until_settled()
    assert second in cluster_servers.replicas(first)


def test_the_logs_slot_is_moved(cluster_servers: ClusterServers) -> None:
    source, target = cluster_servers.owner(), cluster_servers.other_master()
    source.client.set("{lab14}:k", "v")
    cluster_servers.migrate_slot(target)
    assert (cluster_servers.owner(), target.client.get("{lab14}:k")) == (target, "v")
    if _is_valkey(source):
        cluster_servers.wait_until_settled()
        cluster_servers.migrate_slot_at_once(source)
        assert source.client.get("{lab14}:k") == "v"


def _is_valkey(server: Server) -> bool:
    return "valkey_version" in server.client.info("server")
