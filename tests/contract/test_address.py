"""Where the log is, according to real Sentinels."""

import redis

from broker import address
from tests.support.logserver import Server
from tests.support.sentinel import SentinelServers
from tests.support.until import until


def test_a_promoted_server_is_found_before_its_failover_has_ended(sentinel_servers: SentinelServers) -> None:
    """The Sentinel that leads a failover has its epoch before it names the new master in SENTINEL MASTER."""
    found = address.parse(sentinel_servers.url())
    first = sentinel_servers.master()
    others = sentinel_servers.replicas()
    assert str(found.locate()) == f"127.0.0.1:{first.port}"
    others[1].stop()  # so that the failover takes until its time-out: one replica cannot be told the new master
    sentinel_servers.isolate(first)

    def switched() -> bool:
        named = [_names(sentinel, others[0]) for sentinel in sentinel_servers.sentinels]
        found.forget()
        assert not any(named) or str(found.locate()) == f"127.0.0.1:{others[0].port}"
        return all(named)

    try:
        until(switched, 20)
    finally:
        others[1].cont()


def _names(sentinel: Server, server: Server) -> bool:
    try:
        answer = sentinel.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "lab14")
    except redis.RedisError:
        return False
    return int(answer[1]) == server.port
