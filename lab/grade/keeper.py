"""Keeps all processes of one program together, and kills them when it is told to, or when the grader has ended.

It runs between the grader and the program, as a script: ``keeper.py REPORT MARKER COMMAND…``. On Linux orphans of the
program become its children, so that a daemon is found like any other process; elsewhere one is found by a variable in
its environment. The end of its standard input, which the kernel closes even after ``kill -9`` of the grader, is the
order to kill. It writes one line per event to the descriptor REPORT: ``started PID``, ``failed ERRNO`` or
``ended STATUS``.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

MARKER = "GRADED_BY_LAB"  # not LAB_…: the program is given only the variables of its contract
_PR_SET_CHILD_SUBREAPER = 36
_HAS_SUBREAPER = sys.platform == "linux"


def descendants(keeper: int, marker: str) -> list[psutil.Process]:
    """The program's processes, without the keeper."""
    found: list[psutil.Process] = []
    with suppress(psutil.Error):  # it has just ended
        found = psutil.Process(keeper).children(recursive=True)
    if not _HAS_SUBREAPER:
        found += [process for process in marked(marker) if process.pid != keeper and process not in found]
    return found


def marked(marker: str) -> list[psutil.Process]:
    """The processes that were started with this marker in their environment."""

    def is_marked(process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):  # of another user, or it has just ended
            return process.environ().get(MARKER) == marker
        return False

    return [process for process in psutil.process_iter() if is_marked(process)]


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to the processes' groups: no process of a group can escape by forking meanwhile."""
    for process in processes:
        with suppress(OSError):  # it has just ended
            group = os.getpgid(process.pid)
            if group == os.getpgid(0):
                os.kill(process.pid, number)
            else:
                os.killpg(group, number)


def kill_all(find: Callable[[], Iterable[psutil.Process]], has_children: Callable[[], bool] = lambda: False) -> None:
    """Kill until nothing is found, and no child is left: a search can miss one whose parent ends meanwhile."""
    while True:
        is_parent = has_children()  # which also ends those that were killed
        found = [process for process in find() if process.pid != os.getpid()]
        if not (is_parent or found):
            return
        send(found, signal.SIGKILL)
        time.sleep(0.001)


class _Keeper:
    def __init__(self, report: int, marker: str) -> None:
        self._report = report
        self._marker = marker
        self._main = 0

    def run(self, command: list[str]) -> None:
        woken = _prepare()
        if not self._start(command):
            return
        told = sys.stdin.fileno()
        while True:
            ready, _, _ = select.select([told, woken], [], [])
            if told in ready:
                break
            os.read(woken, 1024)
            self._reap()
        if self._main:
            with suppress(OSError):
                os.killpg(self._main, signal.SIGKILL)
        kill_all(self._left, self._reap)

    def _start(self, command: list[str]) -> bool:
        try:
            # Its own session: a shell's `kill 0` must not reach the keeper.
            started = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            self._tell(f"failed {error.errno}")
            return False
        self._started = started  # kept: without a reference it would take the exit status of one that ends at once
        self._main = started.pid
        self._tell(f"started {self._main}")
        return True

    def _reap(self) -> bool:
        """Take note of the children that have ended; return whether there are others."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._main:
                    self._main = 0
                    self._tell(f"ended {os.waitstatus_to_exitcode(ended[1])}")
        except ChildProcessError:
            return False
        return True

    def _left(self) -> list[psutil.Process]:
        found = descendants(os.getpid(), self._marker)
        return found + [process for process in marked(self._marker) if process not in found]

    def _tell(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the grader has ended
            os.write(self._report, f"{line}\n".encode())


def _prepare() -> int:
    """Become the parent of orphans; return a descriptor that can be read when a child has ended."""
    if _HAS_SUBREAPER:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the program would inherit
    return woken


if __name__ == "__main__":
    _Keeper(int(sys.argv[1]), sys.argv[2]).run(sys.argv[3:])
    os._exit(0)  # the grader waits, and there is nothing to clean up
