"""The state of a running lab in its data directory, and the lock that indicates that it runs."""

import fcntl
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import LabError
from lab.local import files

STATE = "lab.json"
_LOCK = "lab.lock"
_BYTES_MAX = 2**20
_LOOK_SECONDS = 0.5  # how long commands that inspect the lock can delay a starting lab
_FIRST_STATE_SECONDS = 2.0  # for a lab that has just started to write its state
RUNS_ALREADY = "a lab already runs in {}; `lab status` shows it, `lab down` stops it"


@dataclass(frozen=True)
class NodeState:
    """A process of the lab; ``pid`` is ``None`` while it restarts."""

    id: str
    role: str
    url: str
    pid: int | None
    restarts: int


@dataclass(frozen=True)
class LabState:
    """A running lab. ``pid`` and ``started``: of its supervisor. ``ready``: everything has been healthy."""

    pid: int
    started: str
    ready: bool
    namespace: str
    base_port: int
    redis_url: str
    nodes: list[NodeState]

    def node_or_none(self, role: str) -> NodeState | None:
        return next((node for node in self.nodes if node.role == role), None)


class Claim:
    """The lock on a data directory: held while the lab runs, and released by the kernel however it ends."""

    def __init__(self, data_dir: Path) -> None:
        """Raises ``LabError`` if another lab owns the directory or it cannot be used."""
        files.directory(data_dir)
        try:
            self._file = files.open_file(data_dir / _LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise LabError(f"{data_dir / _LOCK} cannot be opened: {error.strerror}") from None
        if not _takes(self._file, fcntl.LOCK_EX, _LOOK_SECONDS):
            os.close(self._file)
            raise LabError(RUNS_ALREADY.format(data_dir))
        self._state = data_dir / STATE

    def write(self, state: LabState) -> None:
        """Record the state of the lab. Raises ``OSError``."""
        new = self._state.with_suffix(".new")
        with os.fdopen(files.open_file(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            file.write(json.dumps(asdict(state), indent=2) + "\n")
        new.replace(self._state)

    def release(self) -> None:
        with suppress(OSError):  # a leftover state is ignored, because its process has ended
            if self.is_intact():
                self._state.unlink(missing_ok=True)
        os.close(self._file)

    def is_intact(self) -> bool:
        """Whether the directory is still the one that was claimed, rather than removed or replaced."""
        try:
            return os.path.samestat(os.fstat(self._file), self._state.with_name(_LOCK).stat())
        except FileNotFoundError:
            return False
        except OSError:
            return True  # the disk does not respond at the moment


def is_claimed(data_dir: Path) -> bool:
    """Whether a lab runs in this directory. Raises ``LabError`` for a directory of another user."""
    files.require_own(data_dir)
    try:
        descriptor = files.open_file(data_dir / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    with os.fdopen(descriptor):
        # Shared, so that readers do not exclude each other; a starting lab waits for them.
        return not _takes(descriptor, fcntl.LOCK_SH, 0.0)


def _takes(descriptor: int, lock: int, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)


def read(data_dir: Path) -> LabState | None:
    """The lab that runs in this directory, or ``None``.

    Raises ``LabError`` for a directory of another user, and if the state of a running lab cannot be trusted: it has
    another version's form, or names a process that did not write it.
    """
    deadline = time.monotonic() + _FIRST_STATE_SECONDS
    while is_claimed(data_dir):
        try:
            return _trusted(data_dir / STATE)
        except LabError as error:
            # A lab that has just claimed the directory may not have replaced its predecessor's state yet.
            if time.monotonic() >= deadline:
                advice = f"end the process that holds {data_dir / _LOCK} manually"
                raise LabError(f"a lab runs in {data_dir}, but its process is unknown: {error}; {advice}") from None
        time.sleep(0.01)
    return None


def is_running(state: LabState) -> bool:
    """Whether the process that wrote the state still runs, as opposed to another process with its ID."""
    return _started(state.pid) == state.started


def this_process() -> tuple[int, str]:
    """``pid`` and ``started`` of the calling process."""
    return os.getpid(), _started(os.getpid())


def _trusted(path: Path) -> LabState:
    from pydantic import TypeAdapter, ValidationError  # takes memory, and the supervisor only writes

    try:
        with os.fdopen(files.open_file(path, os.O_RDONLY), "rb") as file:
            found = TypeAdapter(LabState).validate_json(file.read(_BYTES_MAX), strict=True)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        why = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise LabError(f"{path} is damaged, or of another version of the lab: {why}") from None
    if not is_running(found):
        raise LabError(f"{path} belongs to a lab that has ended")
    return found


def _started(pid: int) -> str:
    """The start time of the process in a system-specific unit; empty if there is no such process."""
    if sys.platform == "linux":  # ticks since the boot, which do not depend on the clock
        with suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19] if pid > 0 else ""
    else:
        import psutil  # takes memory

        with suppress(psutil.Error, ValueError, OverflowError):
            return str(psutil.Process(pid).create_time())
    return ""


def require(data_dir: Path) -> LabState:
    if (state := read(data_dir)) is None:
        raise LabError(f"no lab runs in {data_dir}; `lab up` starts one")
    return state


def url(data_dir: Path, role: str) -> str:
    """The URL of the running lab's node of this role. Raises ``LabError`` without a lab or such a node."""
    if (node := require(data_dir).node_or_none(role)) is None:
        raise LabError(f"the lab has no {role}")
    return node.url
