"""Real log servers for tests."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.connection import connect
from broker.errors import LogError
from broker.log import ReplicationLog
from lab.local.layout import free_port
from tests.support.until import until


class Server:
    """A process of a Valkey or Redis binary on a loopback port: a log server, a node of a cluster, or a Sentinel."""

    def __init__(self, command: list[str], port: int, output: Path, password: str | None = None) -> None:
        self.port = port
        self.output = output
        self._command = command
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    @property
    def client(self) -> Any:
        """A client of this server only, as the user ``default``: redis-py's own, without retries."""
        if self._client is None:
            self._client = redis.Redis(
                port=self.port,
                password=self._password,
                socket_timeout=2,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                decode_responses=True,
            )
        return self._client

    def start(self, timeout_seconds: float = 10.0) -> None:
        """Start the server, and return when it answers."""
        self.launch()
        until(self.answers, timeout_seconds)

    def launch(self) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())  # refused while the file is loading
        except redis.RedisError:
            return False

    def replication(self) -> dict[str, Any]:
        """INFO replication; empty when the server does not answer."""
        try:
            return dict(self.client.info("replication"))
        except redis.RedisError:
            return {}

    def is_master(self) -> bool:
        """Whether the server answers, and says that it is a master."""
        return self.replication().get("role") == "master"

    def stop(self) -> None:
        """Freeze the process."""
        self.signal(signal.SIGSTOP)

    def cont(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process, as a power cut would; nothing happens if it was killed already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class LogServer(Server):
    """A log server with an append-only file that survives a kill."""

    def __init__(self, binary: str, directory: Path) -> None:
        port = free_port()
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
        super().__init__([*command, "--appendonly", "yes", "--save", ""], port, directory / "server.log")
        self.url = f"redis://127.0.0.1:{port}/0"

    def answers(self) -> bool:
        try:
            return ReplicationLog(connect(self.url, answer_timeout_seconds=1.0)).history.length() >= 0
        except LogError:
            return False
