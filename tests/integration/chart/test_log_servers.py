"""The chart's log servers with Sentinels: the script of its pods, on real servers and loopback addresses."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from broker.connection import connect
from broker.errors import LogError
from broker.history import History
from tests.support.chart import CHART
from tests.support.ports import base_port
from tests.support.until import until

pytestmark = [pytest.mark.needs("redis-server"), pytest.mark.timeout(120)]
HOSTS = ["127.14.0.1", "127.14.0.2", "127.14.0.3"]
PASSWORD = "some-password"
# Sentinel looks for changes each second or every ten; the tests need not wait for that.
FAST = ["INFO-PERIOD", "200", "PUBLISH-PERIOD", "200", "PING-PERIOD", "200", "ASK-PERIOD", "200"]


class Pod:
    """A pod of the StatefulSet: a server and a Sentinel that share a volume."""

    def __init__(self, host: str, volume: Path, base: int) -> None:
        self.host, self.volume = host, volume
        self.ports = {"server": base, "sentinel": base + 1}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.volume.mkdir(exist_ok=True)
        own = {
            "SELF": self.host, "HOSTS": " ".join(HOSTS), "BIND": self.host, "CONFIG": str(self.volume / "redis.conf"),
            "PORT": str(self.ports["server"]), "SENTINEL_PORT": str(self.ports["sentinel"]),
            "MASTER_NAME": "lab14", "PASSWORD": PASSWORD, "QUORUM": "2", "DOWN_AFTER_MS": "1000", "MAX_MEMORY_MB": "64",
        }  # fmt: skip
        for role in self.ports:
            with (self.volume.parent / f"{self.host}.{role}.log").open("ab") as log:
                line = ["sh", str(CHART / "files/log.sh"), role]
                process = subprocess.Popen(
                    line, env=os.environ | own, cwd=self.volume, stdout=log, stderr=log, start_new_session=True
                )
            self._processes.append(process)

    def kill(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def lose_volume(self) -> None:
        for path in sorted(self.volume.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def ask(self, *command: str, of: str = "server") -> Any:
        """Return the answer, or an error's text."""
        options: dict[str, Any] = {"decode_responses": True, "protocol": 2, "socket_timeout": 2}
        client = redis.Redis(self.host, self.ports[of], password=PASSWORD, **options)
        try:
            return client.execute_command(*command)
        except redis.RedisError as error:
            return str(error)
        finally:
            client.close()

    def roles(self) -> list[Any]:
        """Return the server's role, and the master as the Sentinel sees it."""
        return [self.host, self.ask("ROLE"), self.ask("SENTINEL", "MASTER", "lab14", of="sentinel")]

    def is_master(self) -> bool:
        """Return whether it is a master that acknowledges."""
        return self.ask("SET", "probe", "1") in {True, "OK"}

    def follows(self, master: "Pod") -> bool:
        role = self.ask("ROLE")
        return role[:2] == ["slave", master.host] and role[3] == "connected"


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[list[Pod]]:
    """Three pods, started in parallel on empty volumes."""
    base = base_port()
    found = [Pod(host, tmp_path / host, base) for host in HOSTS]
    for pod in found:
        pod.start()
    try:
        until(lambda: settled(found), 30)
        yield found
    finally:
        for pod in found:
            pod.kill()


def settled(pods: list[Pod]) -> Pod | None:
    """Return the master, once the others follow it and every Sentinel knows all servers and Sentinels."""
    masters = [pod for pod in pods if pod.is_master()]
    if len(masters) != 1 or not all(pod.follows(masters[0]) for pod in pods if pod is not masters[0]):
        return None
    for pod in pods:
        pod.ask("SENTINEL", "DEBUG", *FAST, of="sentinel")
        known = pod.ask("SENTINEL", "MASTER", "lab14", of="sentinel")
        if not isinstance(known, dict | list):
            return None
        fields = known if isinstance(known, dict) else dict(zip(known[::2], known[1::2], strict=True))
        if (fields["ip"], str(fields["num-slaves"]), str(fields["num-other-sentinels"])) != (masters[0].host, "2", "2"):
            return None
    return masters[0]


def elected(pods: list[Pod]) -> Pod:
    """Return the master that a majority elected."""
    return until(lambda: next((pod for pod in pods if pod.is_master()), None), 30)


def nodes_see(pods: list[Pod], key: str) -> str | None:
    """Return a value as a node reads it, with a URL like the chart's; ``None`` while the Sentinels still agree."""
    sentinels = ",".join(f"{pod.host}:{pod.ports['sentinel']}" for pod in pods)
    client = connect(f"redis+sentinel://:{PASSWORD}@{sentinels}/lab14?sentinel_password={PASSWORD}")
    with suppress(redis.RedisError, LogError):
        assert History(client, "lab14").hazard() is None
        return str(client.get(key))
    return None


def test_a_pod_that_slept_through_a_failover_does_not_take_the_log_back(pods: list[Pod]) -> None:
    first, *others = pods
    assert first.is_master()
    first.kill()
    second = elected(others)
    second.ask("SET", "after", "failover")
    assert second.ask("WAIT", "1", "5000") == 1
    assert until(lambda: nodes_see(pods, "after")) == "failover"
    for pod in others:
        pod.kill()
    first.start()  # alone, and its Sentinel remembers it as the master
    until(lambda: first.ask("PING") is True, 20)
    assert "NOREPLICAS" in str(first.ask("SET", "after", "restart"))
    for pod in others:
        pod.start()
    # Sentinel tries again after 20 s if it took a server that was still starting for a dead one.
    until(lambda: settled(pods), 60, state=lambda: [pod.roles() for pod in pods])
    assert [pod.ask("GET", "after") for pod in pods] == ["failover"] * 3


def test_a_master_that_lost_its_volume_waits_for_another_master(pods: list[Pod]) -> None:
    first, *others = pods
    first.ask("SET", "before", "loss")
    assert first.ask("WAIT", "2", "5000") == 2
    first.kill()
    first.lose_volume()
    first.start()
    elected(others)
    until(lambda: settled(pods), 60, state=lambda: [pod.roles() for pod in pods])
    assert [pod.ask("GET", "before") for pod in pods] == ["loss"] * 3
