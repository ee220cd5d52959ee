"""A real log server for tests."""

import signal
import subprocess
from pathlib import Path

from broker.connection import connect
from broker.errors import LogError
from broker.log import ReplicationLog
from lab.local.layout import free_port
from tests.support.until import until


class LogServer:
    """A Valkey or Redis server on a free loopback port, with an append-only file that survives a kill."""

    def __init__(self, binary: str, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._command += ["--appendonly", "yes", "--save", ""]
        self._output = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_seconds: float = 10.0) -> None:
        """Start the server, and return when it answers."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)
        log = ReplicationLog(connect(self.url, answer_timeout_seconds=1.0))

        def answers() -> bool:
            try:
                return log.history.length() >= 0  # which is refused while the file is loading, as TIME is not
            except LogError:
                return False

        until(answers, timeout_seconds)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process, as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
