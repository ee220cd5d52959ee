"""A log on a Redis Cluster: real nodes, which tests kill and between which they move the log's slot."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from lab.local.log_server import binary_path
from tests.support.logserver import Server
from tests.support.ports import base_port
from tests.support.until import until

PASSWORD = "a-password-of-tests"
SWITCH_SECONDS = 30.0
_ATTEMPT_SECONDS = 6.0
LOG_KEY = "{lab14}:log"
_SLOTS = 16_384
_BUS = 40  # offset of the port of the cluster bus
_NODE_TIMEOUT_MS = 1000


class ClusterServers:
    """Masters, each with ``replicas_each`` replicas; the slots are divided among the masters."""

    def __init__(self, which: str, directory: Path, masters: int = 3, replicas_each: int = 1) -> None:
        self._masters = masters
        base, binary = base_port(), binary_path(which)
        ports = range(base, base + masters * (1 + replicas_each))
        self.servers = [_node(binary, port, directory / str(port)) for port in ports]

    @classmethod
    @contextmanager
    def running(cls, which: str, directory: Path, masters: int = 3, replicas_each: int = 1) -> Iterator[Self]:
        found = cls(which, directory, masters, replicas_each)
        try:
            found.start()
            yield found
        finally:
            found.end()

    def start(self) -> None:
        """Start the nodes, form the cluster, and return when all slots are served and all replicas follow."""
        for server in self.servers:
            server.launch()
        for server in self.servers:
            until(server.answers)
        masters, replicas = self.servers[: self._masters], self.servers[self._masters :]
        for number, server in enumerate(masters):
            bounds = [_SLOTS * one // self._masters for one in (number, number + 1)]
            _cluster(server, "ADDSLOTSRANGE", bounds[0], bounds[1] - 1)
            _cluster(server, "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            _cluster(self.servers[0], "MEET", "127.0.0.1", server.port, server.port + _BUS)
        until(lambda: all(len(_nodes(server)) == len(self.servers) for server in self.servers))
        for number, server in enumerate(replicas):
            _cluster(server, "REPLICATE", _id(masters[number % self._masters]))
        until(self.settled, SWITCH_SECONDS)

    def end(self) -> None:
        for server in self.servers:
            server.kill()

    def url(self, options: str = "") -> str:
        """The URL of the log; ``options`` begin with ``?``."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"redis+cluster://default:{PASSWORD}@{hosts}{options}"

    # -- who has the log's slot ---------------------------------------------------------------------------------------
    def slot(self, key: str = LOG_KEY) -> int:
        return int(_cluster(next(server for server in self.servers if server.answers()), "KEYSLOT", key))

    def owner(self, key: str = LOG_KEY) -> Server:
        """The master that serves the key, by its own word."""
        found = self._owner(key)
        assert found is not None, "no master serves it"
        return found

    def wait_for_owner(self, other_than: Server | None = None, timeout_seconds: float = SWITCH_SECONDS) -> Server:
        """Wait until one server, other than the one given, serves the log's slot, and return it."""

        def other() -> Server | None:
            return found if (found := self._owner(LOG_KEY, other_than)) is not other_than else None

        found = until(other, timeout_seconds)
        assert found is not None
        return found

    def replicas(self, server: Server) -> list[Server]:
        """The replicas of a master that answer."""
        return [one for one in self.servers if one.replication().get("master_port") == server.port]

    def settled(self) -> bool:
        """Whether every node finds the cluster whole, and every replica follows its master."""
        infos = [server.replication() for server in self.servers]
        links = [info["master_link_status"] for info in infos if info.get("role") == "slave"]
        masters = [info for info in infos if info.get("role") == "master"]
        replicas = len(self.servers) - self._masters
        return len(masters) == self._masters and links == ["up"] * replicas and all(map(_is_whole, self.servers))

    def wait_until_settled(self, timeout_seconds: float = SWITCH_SECONDS) -> None:
        until(self.settled, timeout_seconds)

    # -- what happens to them -----------------------------------------------------------------------------------------
    def failover(self, *how: str, timeout_seconds: float = SWITCH_SECONDS) -> Server:
        """Make a replica of the log's owner the owner, by command (``how``: such as TAKEOVER), and return it."""
        before = self.owner()

        def switched() -> Server | None:
            _cluster(self.replicas(before)[0], "FAILOVER", *how)
            try:
                return self.wait_for_owner(before, _ATTEMPT_SECONDS)
            except AssertionError:  # a replica gives up after five seconds, as on a busy machine
                return None

        found = until(switched, timeout_seconds)
        assert found is not None
        return found

    def other_master(self) -> Server:
        """A master that does not serve the log's slot."""
        owner = self.owner()
        return next(one for one in self.servers if one is not owner and one.is_master())

    def begin_migration(self, target: Server) -> None:
        """Let the log's slot be on its way to another master: keys that are not there any more are asked for there."""
        source, slot = self.owner(), self.slot()
        _cluster(target, "SETSLOT", slot, "IMPORTING", _id(source))
        _cluster(source, "SETSLOT", slot, "MIGRATING", _id(target))

    def migrate_key(self, key: str, target: Server, source: Server) -> None:
        command = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH2", "default", PASSWORD, "KEYS", key)
        source.client.execute_command(*command)

    def end_migration(self, target: Server, source: Server) -> None:
        slot = self.slot()
        for server in (target, source):  # in this order: the slot always has an owner
            _cluster(server, "SETSLOT", slot, "NODE", _id(target))

    def migrate_slot(self, target: Server) -> None:
        """Move the log's slot to another master, key by key, while it is in use."""
        source, slot = self.owner(), self.slot()
        self.begin_migration(target)
        while keys := _cluster(source, "GETKEYSINSLOT", slot, 100):
            for key in keys:
                self.migrate_key(key, target, source)
        self.end_migration(target, source)

    def migrate_slot_at_once(self, target: Server, timeout_seconds: float = SWITCH_SECONDS) -> None:
        """Move the log's slot to another master in one step; only Valkey 9 can."""
        source, slot = self.owner(), self.slot()
        _cluster(source, "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", _id(target))
        assert self.wait_for_owner(source, timeout_seconds) is target

    def _owner(self, key: str, other_than: Server | None = None) -> Server | None:
        slot = self.slot(key)
        owners = [server for server in self.servers if server is not other_than and _owns(server, slot)]
        return owners[0] if len(owners) == 1 else None


def _node(binary: str, port: int, directory: Path) -> Server:
    directory.mkdir()
    file = directory / "node.conf"
    lines = [
        *(f"port {port}", "bind 127.0.0.1", f'dir "{directory}"', "cluster-enabled yes"),
        *(f"cluster-port {port + _BUS}", f"cluster-node-timeout {_NODE_TIMEOUT_MS}"),
        *(f"requirepass {PASSWORD}", f"masterauth {PASSWORD}", "appendonly yes", 'save ""'),
        "repl-diskless-sync-delay 0",
    ]
    file.write_text("\n".join(lines) + "\n")
    return Server([binary, str(file)], port, directory / "server.log", PASSWORD)


def _cluster(server: Server, *words: Any) -> Any:
    return server.client.execute_command("CLUSTER", *words)


def _id(server: Server) -> str:
    return str(_cluster(server, "MYID"))


def _nodes(server: Server) -> list[list[str]]:
    """The fields of each line of CLUSTER NODES; none when the server does not answer."""
    try:
        return [line.split() for line in str(_cluster(server, "NODES")).splitlines()]
    except redis.RedisError:
        return []


def _owns(server: Server, slot: int) -> bool:
    """Whether the server says that it is a master and serves the slot."""
    for fields in _nodes(server):
        if "myself,master" in fields[2]:
            ranges = [one.split("-") for one in fields[8:] if not one.startswith("[")]
            return any(int(one[0]) <= slot <= int(one[-1]) for one in ranges)
    return False


def _is_whole(server: Server) -> bool:
    """Whether this node finds the cluster whole, and no node down or still unknown to it."""
    troubled = [fields for fields in _nodes(server) if "fail" in fields[2] or "handshake" in fields[2]]
    return not troubled and "cluster_state:ok" in str(_cluster(server, "INFO"))
