"""Server processes in a directory of their own, as another user if the tests run as root: databases refuse root."""

import ctypes
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.until import until

_NOBODY = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
_USER = {"user": _NOBODY.pw_uid, "group": _NOBODY.pw_gid, "extra_groups": []} if _NOBODY else {}
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def can_enter(path: Path) -> bool:
    """Whether the servers' user can run what is in the directory, which is, for example, not below ``/root``."""
    return _NOBODY is None or all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


@contextmanager
def directory() -> Iterator[Path]:
    """An empty directory of the servers' user. Not pytest's, which other users cannot enter."""
    made = Path(tempfile.mkdtemp(prefix="lab-databases-"))
    if _NOBODY:
        os.chown(made, _NOBODY.pw_uid, _NOBODY.pw_gid)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def run(*command: str | Path) -> None:
    """Run a command to its end as the servers' user; fail the test with its output if it fails."""
    done = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **_USER)
    assert done.returncode == 0, done.stdout.decode(errors="replace")


class Process:
    """A server. It ends with the thread that started it, on Linux even if that was killed."""

    def __init__(self, command: list[str], log: Path, end: signal.Signals = signal.SIGTERM) -> None:
        self._command = command
        self._log = log
        self._end = end
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=self._end_with_parent,  # noqa: PLW1509 - one system call, prepared before the fork
                **_USER,
            )

    def wait_until(self, answers: Callable[[], bool], timeout_seconds: float = 30.0) -> None:
        """Return when the server answers; fail the test with its log if it ends before."""
        assert self._process is not None
        process = self._process
        until(lambda: answers() or process.poll() is not None, timeout_seconds)
        assert process.poll() is None, self._log.read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """End the server; nothing happens if it has ended already."""
        if self._process is not None:
            self._process.send_signal(self._end)
            self._process.wait(20)

    def _end_with_parent(self) -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, self._end)
