"""One process of the lab: started, watched, restarted, stopped."""

import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.local import files, logs

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
RESTART_PAUSES_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
_SETTLED_SECONDS = 10.0  # after which an exit does not count as repeated


@dataclass
class Child:
    """A process that is kept running. Not thread-safe: one thread starts, watches and stops it.

    On Linux the kernel ends it with the thread that started it. It has its own process group, so that Ctrl-C in a
    terminal reaches the supervisor only, and writes to a log file with one older version.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    monotonic: Callable[[], float]
    restart_pauses_seconds: Sequence[float] = RESTART_PAUSES_SECONDS  # the first: after an exit that is no repetition
    restarts: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0
    _failures: int = 0
    _restart_at: float | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def listens_on(self, port: int) -> bool:
        """Whether this process or one of its children, not an unrelated process, listens on the port."""
        import psutil  # takes memory, and is needed only while a lab starts

        if self.pid is None:
            return False
        found = []
        with suppress(psutil.Error):  # it has just ended
            own = psutil.Process(self.pid)
            for process in (own, *own.children(recursive=True)):
                with suppress(psutil.Error):
                    found += process.net_connections("tcp")
        return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found)

    def start(self) -> None:
        """Start the process. Raises ``OSError``."""
        files.subdirectory(self.log.parent)
        logs.limit(self.log)
        with os.fdopen(files.open_file(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                umask=0o077,  # their files are as private as the directory
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, prepared before the fork
            )
        self._started_at = self.monotonic()

    def watch(self) -> str | None:
        """Restart the process if it exited; return a message if anything happened. Early exits prolong the pause."""
        now = self.monotonic()
        if self._restart_at is not None:
            if now < self._restart_at:
                return None
            self._restart_at = None
            self.restarts += 1
            try:
                self.start()
            except (OSError, LabError) as error:
                return f"{self.name} cannot be started ({error}); {self._try_again(now)}"
            return f"{self.name} restarted"
        if self._process is None or (code := self._process.poll()) is None:
            return None
        if now - self._started_at >= _SETTLED_SECONDS:
            self._failures = -1
        return f"{self.name} ended ({ending(code)}); {self._try_again(now)}"

    def _try_again(self, now: float) -> str:
        self._failures += 1
        pause = self.restart_pauses_seconds[min(self._failures, len(self.restart_pauses_seconds) - 1)]
        self._restart_at = now + pause
        return f"restarting it in {pause:g} s"

    def terminate(self) -> None:
        self._restart_at = None
        if self.pid is not None and self._process is not None:
            self._process.terminate()

    def wait(self, timeout_seconds: float) -> None:
        """Wait for the process to exit, and kill it after the timeout."""
        if self._process is not None:
            try:
                self._process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def last_words(self) -> str:
        return last_line(self.log) or f"{self.log} is empty"


def ending(code: int) -> str:
    """Words for the exit status of a process, negative for a signal."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"


def last_line(log: Path) -> str:
    """The last non-empty line of a log file, or an empty string."""
    try:
        with log.open(errors="replace") as file:
            lines = deque((line for line in file if line.strip()), maxlen=1)
    except OSError:
        return ""
    return lines[0].strip() if lines else ""


def _end_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
