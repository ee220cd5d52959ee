"""The log on a real server with replicas of its own: copies that confirm a write, and a master that is one again."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from redis import RedisError

from broker.connection import connect
from broker.errors import LogUnverified, TooFewCopies
from broker.log import Appended, ReplicationLog
from broker.position import Position
from lab.local.log_server import binary_path
from tests.conftest import REAL_SERVERS
from tests.support.logserver import LogServer, Server
from tests.support.sentinel import SentinelServers
from tests.support.until import until

Pair = tuple[LogServer, LogServer]


@pytest.fixture(params=REAL_SERVERS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """A master, and its replica."""
    found = []
    for name in ("master", "replica"):
        (directory := tmp_path / name).mkdir()
        found.append(LogServer(binary_path(request.param), directory))
    master, replica = found
    try:
        master.start()
        replica.start()
        master.client.config_set("repl-diskless-sync-delay", 0)
        replica.client.replicaof("127.0.0.1", master.port)
        until(lambda: replica.replication().get("master_link_status") == "up")
        yield master, replica
    finally:
        replica.cont()
        for server in found:
            server.kill()


def opened(server: LogServer) -> ReplicationLog:
    log = ReplicationLog(connect(server.url))
    log.open("opened")
    return log


def test_a_write_without_its_copies_is_unknown_and_so_is_every_retry_until_they_have_it(pair: Pair) -> None:
    master, replica = pair
    log = opened(master)
    written = log.append("set", "k", "1", "w1", copies=1)
    assert written is not None
    assert written.position == Position(1, 1)
    replica.stop()
    # Another connection has written nothing that WAIT would wait for, unless a retry writes something.
    for retrying in (log, log, ReplicationLog(connect(master.url))):
        with pytest.raises(TooFewCopies) as caught:
            retrying.append("set", "k", "2", "w2", copies=1)
        assert caught.value.position == Position(1, 2)
    replica.cont()

    def confirmed() -> Appended | None:
        try:
            return log.append("set", "k", "2", "w2", copies=1)
        except TooFewCopies:
            return None

    found = until(confirmed)
    assert found is not None
    assert (found.position, found.repeated) == (Position(1, 2), True)
    assert replica.client.hget("lab14:head", "version") == "2"


@pytest.mark.parametrize("which", REAL_SERVERS)
def test_a_server_that_becomes_master_again_without_a_restart_refuses_until_the_log_is_opened(
    which: str, tmp_path: Path
) -> None:
    with SentinelServers.running(which, tmp_path, replicas=1) as servers:
        log = ReplicationLog(connect(servers.url()))
        log.open("o", moves=True)
        masters, appended = [], []
        for turn in range(3):
            masters.append(servers.master())
            written = log.append("set", "k", str(turn), f"w{turn}")
            assert written is not None
            appended.append(written.position)
            until(partial(all_have, servers.replicas(), written.position.version))
            servers.failover()
            servers.wait_until_settled()
            with pytest.raises(LogUnverified):
                log.append("set", "k", "unverified", f"u{turn}")
            log.open(f"o{turn}", moves=True)
    assert masters[0] is masters[2] is not masters[1]
    assert appended == [Position(number, number) for number in (1, 2, 3)]


def all_have(servers: list[Server], version: int) -> bool:
    try:
        return all(server.client.hget("lab14:head", "version") == str(version) for server in servers)
    except RedisError:
        return False
