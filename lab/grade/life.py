"""One run of a graded program, from its start until none of its processes is left, watched by a thread."""

import os
import secrets
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import psutil

from lab.errors import LabError
from lab.grade import keeper
from lab.local import files, logs
from lab.local.processes import ending
from lab.terminal import plain

_WATCH_SECONDS = 0.1
_KILL_SECONDS = 10.0  # a process that still runs then waits for a device
_LEFT_SECONDS = 1.0  # for helper processes to notice that the main process has ended
_CHUNK_BYTES = 64 * 2**10
_LINE_CHARACTERS = 200
_TAIL_BYTES = 4096
_MIB = 2**20


class Misbehaved(LabError):
    """Raised with one sentence about a program that cannot be graded."""

    exit_code = 2


class Limits(NamedTuple):
    memory_bytes: int = 2**30
    output_bytes: int = 16 * _MIB  # of one run
    processes: int = 64


class Life:
    """``ended``: the exit status of the main process. ``fault``: what the program did that ended its run."""

    def __init__(self, log: Path, limits: Limits, monotonic: Callable[[], float]) -> None:
        self.pid: int | None = None
        self.ended: int | None = None
        self.fault = ""
        self.over = threading.Event()  # ended, or at fault
        self.gone = threading.Event()  # with all processes
        self._log = log
        self._limits = limits
        self._monotonic = monotonic
        self.gone.set()
        self._marker = secrets.token_hex(16)
        self._keeper: subprocess.Popen[bytes] | None = None
        self._started = threading.Event()
        self._refused: OSError | None = None
        self._printed_bytes = 0
        self._tail = b""
        self._ended_at = 0.0

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the program. Raises ``OSError``."""
        files.subdirectory(self._log.parent)
        logs.limit(self._log)
        log = os.fdopen(files.open_file(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab", buffering=0)
        report, reporting = os.pipe()
        self._keeper = subprocess.Popen(
            [sys.executable, "-P", keeper.__file__, str(reporting), self._marker, *command],
            env={**environment, keeper.MARKER: self._marker},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            pass_fds=[reporting],
            start_new_session=True,  # Ctrl-C in a terminal reaches the grader only
        )
        self.gone.clear()
        os.close(reporting)
        opened = (log, os.fdopen(report, "rb", buffering=0), cast(BinaryIO, self._keeper.stdout))
        threading.Thread(target=self._watch, args=opened, name="watch", daemon=True).start()
        self._started.wait()
        if self._refused is not None:
            self.kill()
            raise self._refused

    def kill(self) -> None:
        """Kill all processes of the program; return when none is left. Raises ``Misbehaved`` if that is impossible."""
        self._let_go()
        if not self.gone.wait(_KILL_SECONDS):
            raise Misbehaved(f"the program cannot be killed: {_named(self.processes())} still running")

    def processes(self) -> list[psutil.Process]:
        """Its processes, without those that have ended and still wait for their parent to ask."""
        found = keeper.descendants(self._keeper.pid, self._marker) if self._keeper is not None else []
        return [process for process in found if _runs(process)]

    def listening(self) -> set[tuple[str, int]]:
        found = set()
        for process in self.processes():
            with suppress(psutil.Error):
                sockets = process.net_connections("tcp")
                found |= {(one.laddr.ip, one.laddr.port) for one in sockets if one.status == psutil.CONN_LISTEN}
        return found

    def last_words(self) -> str:
        """A clause with the last line of output, shortened and harmless."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            return "it printed nothing"
        line = plain(lines[-1], keep="")
        return f"its last line: {line if len(line) <= _LINE_CHARACTERS else line[: _LINE_CHARACTERS - 1] + '…'}"

    # -- the watching thread ------------------------------------------------------------------------------------------
    def _watch(self, log: BinaryIO, report: BinaryIO, output: BinaryIO) -> None:
        try:
            with log, report, output:
                self._follow(log, report.fileno(), output.fileno())
        finally:
            self._let_go()
            if self._keeper is not None and self._keeper.wait() != 0:  # it was killed itself
                if self.pid is not None and self.ended is None:
                    with suppress(OSError):  # while it is being executed, its environment is empty
                        os.killpg(self.pid, signal.SIGKILL)
                keeper.kill_all(lambda: keeper.marked(self._marker))
            self.over.set()
            self._started.set()
            self.gone.set()

    def _follow(self, log: BinaryIO, report: int, output: int) -> None:
        os.set_blocking(output, False)
        poll = selectors.PollSelector()
        poll.register(output, selectors.EVENT_READ)
        poll.register(report, selectors.EVENT_READ)
        look_at = self._monotonic() + _WATCH_SECONDS
        while True:
            ready = {key.fd for key, _ in poll.select(_WATCH_SECONDS)}
            if report in ready:
                while self._copy(output, log):  # what it printed before
                    pass
                if not (lines := os.read(report, _CHUNK_BYTES)):
                    return
                self._take(lines.decode().splitlines())
            elif output in ready and self._copy(output, log) == 0:
                poll.unregister(output)
            if self._monotonic() >= look_at:
                self._look()
                look_at = self._monotonic() + _WATCH_SECONDS

    def _copy(self, output: int, log: BinaryIO) -> int | None:
        """Return how many bytes were read: 0 at the end, ``None`` if there are none yet."""
        try:
            chunk = os.read(output, _CHUNK_BYTES)
        except BlockingIOError:
            return None
        self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        kept = chunk[: max(0, self._limits.output_bytes - self._printed_bytes)]
        self._printed_bytes += len(chunk)
        with suppress(OSError):  # a full disk
            log.write(kept)
        if self._printed_bytes > self._limits.output_bytes:
            self._accuse(f"printed more than {self._limits.output_bytes / _MIB:g} MiB")
        return len(chunk)

    def _take(self, lines: Sequence[str]) -> None:
        for line in lines:
            word, number = line.split()
            if word == "failed":
                self._refused = OSError(int(number), os.strerror(int(number)))
            elif word == "started":
                self.pid = int(number)
                self._started.set()
            else:
                self.ended, self._ended_at = int(number), self._monotonic()
                self.over.set()

    def _look(self) -> None:
        found = self.processes()
        if len(found) > self._limits.processes:
            self._accuse(f"had {len(found)} processes; the limit is {self._limits.processes}")
        used = sum(map(_memory_bytes, found))
        if used > self._limits.memory_bytes:
            limit = f"{self._limits.memory_bytes / _MIB:,.0f} MiB"
            self._accuse(f"used {used / _MIB:,.0f} MiB of memory; the limit is {limit}")
        if found and self.ended is not None and self._monotonic() - self._ended_at > _LEFT_SECONDS:
            self._accuse(
                f"ended ({ending(self.ended)}) but left {_named(found)} running; it must stay in the foreground"
            )

    def _accuse(self, what: str) -> None:
        if not self.fault:
            self.fault = f"the program {what}; {self.last_words()}"
        self._let_go()
        self.over.set()

    def _let_go(self) -> None:
        """The keeper then kills everything."""
        if self._keeper is not None and self._keeper.stdin is not None:
            with suppress(OSError):
                self._keeper.stdin.close()


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _memory_bytes(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _named(processes: Sequence[psutil.Process]) -> str:
    first = processes[0] if processes else None
    named = ""
    with suppress(psutil.Error):
        named = f" ({plain(first.name(), keep='')[:40]}, process {first.pid})" if first else ""
    return f"{len(processes)} {'process' if len(processes) == 1 else 'processes'}{named}"
