"""A log on one master with replicas, watched by Sentinels: real processes, which tests kill, freeze and isolate."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from lab.local import configuration
from lab.local.configuration import MASTER_NAME, REPLICA, SENTINEL
from lab.local.log_server import binary_path
from tests.support.logserver import Server
from tests.support.ports import base_port
from tests.support.until import until

PASSWORD = "a-password-of-tests"
SWITCH_SECONDS = 30.0
_ATTEMPT_SECONDS = 8.0
_SENTINELS = 3
_PREFERRED, _PRIORITY = 1, 100  # the default
# Not the defaults of 10, 2, 1 and 1 s: a demoted master stops to take writes 1 s after the switch instead of 10 s.
_FAST = ["INFO-PERIOD", "300", "PUBLISH-PERIOD", "200", "PING-PERIOD", "200", "ASK-PERIOD", "300"]


class SentinelServers:
    """A master with ``replicas`` replicas, and three Sentinels; ``fast``: which look more often than by default."""

    def __init__(self, which: str, directory: Path, replicas: int = 2, *, fast: bool = True) -> None:
        self._directory = directory
        self._fast = fast
        base, binary = base_port(), binary_path(which)
        self._ports = range(base, base + 1 + replicas)
        self.servers = [
            self._process([binary], port, configuration.server, master_port=base if port != base else None)
            for port in self._ports
        ]
        self.sentinels = [
            self._process([binary], port, configuration.sentinel, "--sentinel", master_port=base)
            for port in range(self._ports.stop, self._ports.stop + _SENTINELS)
        ]

    def _process(self, binary: list[str], port: int, text: Any, *arguments: str, master_port: int | None) -> Server:
        directory = self._directory / str(port)
        directory.mkdir()
        file = directory / "server.conf"
        file.write_text(text(port, directory, PASSWORD, master_port=master_port))
        return Server([*binary, str(file), *arguments], port, directory / "server.log", PASSWORD)

    @classmethod
    @contextmanager
    def running(cls, which: str, directory: Path, replicas: int = 2, *, fast: bool = True) -> Iterator[Self]:
        found = cls(which, directory, replicas, fast=fast)
        try:
            found.start()
            yield found
        finally:
            found.end()

    def start(self) -> None:
        """Start all, and return when the Sentinels know each other and every replica."""
        for server in self.servers:
            server.launch()
        for server in self.servers:
            until(server.answers)
        until(self.settled)
        for sentinel in self.sentinels:
            self.restart(sentinel)
        until(self._are_quiet)

    def end(self) -> None:
        for server in (*self.servers, *self.sentinels):
            server.kill()

    def url(self, options: str = "") -> str:
        """The URL of the log; ``options`` are further ones, such as ``&db=1``."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://default:{PASSWORD}@{hosts}/{MASTER_NAME}/0?sentinel_password={PASSWORD}{options}"

    # -- who is master ------------------------------------------------------------------------------------------------
    def master(self) -> Server:
        """The master according to most Sentinels that answer. Fails when none answers."""
        named = [port for sentinel in self.sentinels if (port := _named_master(sentinel)) is not None]
        port = max(set(named), key=named.count)
        return next(server for server in self.servers if server.port == port)

    def replicas(self) -> list[Server]:
        master = self.master()
        return [server for server in self.servers if server is not master]

    def settled(self) -> bool:
        """Whether one server is master, and the others are its replicas, with their link up."""
        infos = [server.replication() for server in self.servers]
        masters = [port for port, info in zip(self._ports, infos, strict=True) if info.get("role") == "master"]
        links = [(one["master_port"], one["master_link_status"]) for one in infos if one.get("role") == "slave"]
        return len(masters) == 1 and links == [(masters[0], "up")] * (len(self.servers) - 1)

    def wait_for_master(self, other_than: Server | None = None, timeout_seconds: float = SWITCH_SECONDS) -> Server:
        """Wait until all Sentinels that answer name one server, which takes writes, and return it."""

        def agreed() -> Server | None:
            named = {port for sentinel in self.sentinels if (port := _named_master(sentinel)) is not None}
            found = next((server for server in self.servers if named == {server.port}), None)
            return found if found is not None and found is not other_than and found.is_master() else None

        found = until(agreed, timeout_seconds)
        assert found is not None
        return found

    def wait_until_settled(self, timeout_seconds: float = SWITCH_SECONDS) -> None:
        """Wait until a failover is over: an earlier one is refused, and a demoted master takes writes for a while."""
        until(lambda: self.settled() and self._are_quiet(), timeout_seconds)

    # -- what happens to them -----------------------------------------------------------------------------------------
    def failover(self, timeout_seconds: float = SWITCH_SECONDS) -> Server:
        """Make another server master by command, and return it; the old master may take writes for a while longer."""
        before = self.master()

        def switched() -> Server | None:
            try:
                self.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", MASTER_NAME)
                return self.wait_for_master(before, _ATTEMPT_SECONDS)
            except redis.ResponseError:  # such as NOGOODSLAVE, INPROG: shortly after another failover
                return None
            except AssertionError:  # a Sentinel gives up if the server is not promoted soon, as on a busy machine
                return None

        found = until(switched, timeout_seconds)
        assert found is not None
        return found

    def failover_and_back(self) -> Server:
        """Make another server master by command, then the first one again, and return it."""
        first = self.master()
        self.failover()
        self.wait_until_settled()
        self._set_priority(first, _PREFERRED)
        found = self.failover()
        self._set_priority(first, _PRIORITY)
        return found

    def _set_priority(self, server: Server, priority: int) -> None:
        server.client.config_set("replica-priority", priority)
        until(lambda: all(_priorities(one).get(server.port, priority) == priority for one in self.sentinels))

    def restart(self, server: Server) -> None:
        """Start a killed server with the configuration that it, or a Sentinel, wrote."""
        server.start()
        if server in self.sentinels and self._fast:
            server.client.execute_command("SENTINEL", "DEBUG", *_FAST)

    def isolate(self, server: Server) -> None:
        """Cut a server off from replicas and Sentinels, but not from the user ``default``, as which nodes log in."""
        for user in (REPLICA, SENTINEL):
            server.client.execute_command("ACL", "SETUSER", user, "off")
            server.client.execute_command("CLIENT", "KILL", "USER", user)

    def heal(self, server: Server) -> None:
        for user in (REPLICA, SENTINEL):
            server.client.execute_command("ACL", "SETUSER", user, "on")

    def _are_quiet(self) -> bool:
        return all(_is_quiet(sentinel, len(self.servers)) for sentinel in self.sentinels)


def _named_master(sentinel: Server) -> int | None:
    try:
        found = sentinel.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
    except redis.RedisError:
        return None
    return int(found[1]) if found else None


def _is_quiet(sentinel: Server, servers: int) -> bool:
    """Whether this Sentinel knows all others and all replicas, finds none of them down, and does not fail over."""
    try:
        found = _as_dict(sentinel.client.execute_command("SENTINEL", "MASTER", MASTER_NAME))
        replicas = sentinel.client.execute_command("SENTINEL", "REPLICAS", MASTER_NAME)
    except redis.RedisError:
        return False
    flags = [found["flags"], *(_as_dict(one)["flags"] for one in replicas)]
    return int(found["num-other-sentinels"]) == _SENTINELS - 1 and flags == ["master", *["slave"] * (servers - 1)]


def _priorities(sentinel: Server) -> dict[int, int]:
    """What this Sentinel knows of the replicas: of two, the one with the lower priority is promoted."""
    found = [_as_dict(one) for one in sentinel.client.execute_command("SENTINEL", "REPLICAS", MASTER_NAME)]
    return {int(one["port"]): int(one["slave-priority"]) for one in found}


def _as_dict(words: list[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=True))
