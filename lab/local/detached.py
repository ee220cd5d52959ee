"""A lab in the background: ``lab up`` in a separate session."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab.errors import LabError
from lab.local import files, state
from lab.local.processes import last_line
from lab.local.supervisor import START_SECONDS_MAX

_START_SECONDS = START_SECONDS_MAX + 40.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02


def start(data_dir: Path, arguments: list[str]) -> None:
    """Start ``lab`` with these arguments, and return once everything is healthy. Raises ``LabError``."""
    if state.is_claimed(data_dir):
        raise LabError(state.RUNS_ALREADY.format(data_dir))
    log = files.subdirectory(files.directory(data_dir) / "logs") / "lab.log"
    try:
        output = files.open_file(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    except OSError as error:
        raise LabError(f"{log} cannot be written: {error.strerror}") from None
    with os.fdopen(output, "wb"):
        line = [sys.executable, "-m", "lab", *arguments]
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _await_ready(process, data_dir, log)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def stop(data_dir: Path) -> bool:
    """Stop the lab in this directory and return when it has ended; ``False`` if none runs. Raises ``LabError``."""
    deadline = time.monotonic() + _STOP_SECONDS
    if (found := state.read(data_dir)) is None:
        return False
    try:
        os.kill(found.pid, signal.SIGTERM)
    except ProcessLookupError:
        return True
    except PermissionError:
        raise LabError(f"the lab (process {found.pid}) belongs to another user") from None
    while state.is_running(found) and state.is_claimed(data_dir):
        if time.monotonic() > deadline:
            raise LabError(f"the lab (process {found.pid}) does not stop; see {data_dir / 'logs'}")
        time.sleep(_POLL_SECONDS)
    return True


def _await_ready(process: subprocess.Popen[bytes], data_dir: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None:
        found = state.read(data_dir)
        if found is not None and found.ready and found.pid == process.pid:
            return
        if time.monotonic() > deadline:
            raise LabError(f"the lab was not ready after {_START_SECONDS:g} s; see {log}")
        time.sleep(_POLL_SECONDS)
    words = last_line(log).removeprefix("Error: ")
    raise LabError(words or f"the lab ended with exit status {process.returncode}, and {log} is empty")
