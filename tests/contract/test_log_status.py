"""The log servers of a running lab, as ``lab status`` and ``lab stream`` show them."""

import pytest

from lab.local import log_status
from lab.local.state import LabState, NodeState
from tests.support.logserver import Server
from tests.support.sentinel import PASSWORD, SentinelServers
from tests.support.until import until


def node(server: Server, role: str = "log") -> NodeState:
    return NodeState(f"lab14-{server.port}", role, f"redis://127.0.0.1:{server.port}", 1, 0)


def test_the_master_is_named_and_a_former_one_is_not_healthy(sentinel_servers: SentinelServers) -> None:
    nodes = [node(server) for server in sentinel_servers.servers]
    running = LabState(1, "", True, "lab14", 8000, sentinel_servers.url(), nodes)
    first = sentinel_servers.master()
    master = log_status.master(running.redis_url)
    assert (master, log_status.name_of(master, running)) == (f"127.0.0.1:{first.port}", f"lab14-{first.port}")
    assert log_status.look(node(first), running, master) == {"health": "ok", "log_role": "master"}
    replica = sentinel_servers.replicas()[0]
    assert log_status.look(node(replica), running, master) == {"health": "ok", "log_role": "replica"}
    assert log_status.look(node(sentinel_servers.sentinels[0], "sentinel"), running, master) == {"health": "ok"}
    sentinel_servers.isolate(first)
    second = sentinel_servers.wait_for_master(first)
    until(lambda: log_status.master(running.redis_url) == f"127.0.0.1:{second.port}")
    master = log_status.master(running.redis_url)
    health = "takes writes, but is not the master any more"
    assert log_status.look(node(first), running, master) == {"health": health, "log_role": "master"}
    first.kill()
    assert log_status.look(node(first), running, master) == {"health": "does not answer"}
    for sentinel in sentinel_servers.sentinels[1:]:
        sentinel.kill()
    last = node(sentinel_servers.sentinels[0], "sentinel")
    until(lambda: "NOQUORUM" in log_status.look(last, running, master)["health"])
    sentinel_servers.sentinels[0].kill()
    assert log_status.master(running.redis_url) is None


def test_redis_cli_reaches_the_master(sentinel_servers: SentinelServers) -> None:
    port = sentinel_servers.master().port
    url = f"redis://default:{PASSWORD}@127.0.0.1:{port}/0"
    shown = log_status.redis_cli(sentinel_servers.url(), with_password=True)
    assert shown == f"redis-cli --no-auth-warning -u {url}"
    shown = log_status.redis_cli(sentinel_servers.url(), with_password=False)
    assert shown == f"REDISCLI_AUTH=PASSWORD redis-cli -u redis://127.0.0.1:{port}/0 --user default"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://10.0.0.1:6380/2", "redis-cli -u redis://10.0.0.1:6380/2"),
        ("redis://:se%2Fcret@10.0.0.1/2", "REDISCLI_AUTH=PASSWORD redis-cli -u redis://10.0.0.1/2"),
        ("rediss://h:1/0?ssl_ca_certs=/a%20b", "redis-cli -u rediss://h:1/0 --cacert '/a b'"),
        ("unix:///run/redis.sock?db=3", "redis-cli -s /run/redis.sock -n 3"),
    ],
)
def test_a_given_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert log_status.redis_cli(url, with_password=False) == shown
