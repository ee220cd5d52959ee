"""What a running lab says of itself in its data directory, and the lock that says that it runs."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import LabError
from lab.local import private

STATE = "lab.json"
_LOCK = "lab.lock"
_BYTES_MAX = 2**20
_LOOK_SECONDS = 0.5  # for how long those who only look may hold up a lab that starts
_FIRST_STATE_SECONDS = 2.0


@dataclass(frozen=True)
class NodeState:
    """One process as it is now; ``pid`` is ``None`` while it is being started again."""

    id: str
    role: str
    url: str
    pid: int | None
    restarts: int


@dataclass(frozen=True)
class LabState:
    """A running lab. ``pid`` and ``started``: its supervisor. ``ready``: everything was healthy once."""

    pid: int
    started: str
    ready: bool
    namespace: str
    base_port: int
    redis_url: str
    nodes: list[NodeState]

    def node_or_none(self, role: str) -> NodeState | None:
        """The first process of this role."""
        return next((node for node in self.nodes if node.role == role), None)


class Claim:
    """The ownership of a data directory: held while the lab runs, and released by the kernel however it ends."""

    def __init__(self, data_dir: Path) -> None:
        """Raises ``LabError`` when another lab owns the directory, or it cannot be used."""
        private.directory(data_dir)
        try:
            self._file = private.open_file(data_dir / _LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise LabError(f"{data_dir / _LOCK} cannot be opened: {error.strerror}") from None
        if not _takes(self._file, fcntl.LOCK_EX, _LOOK_SECONDS):
            os.close(self._file)
            raise LabError(f"a lab runs in {data_dir} already; `lab status` shows it, `lab down` stops it")
        self._state = data_dir / STATE

    def write(self, state: LabState) -> None:
        """Say how the lab is now. Raises ``OSError``."""
        new = self._state.with_suffix(".new")
        descriptor = private.open_file(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(asdict(state), indent=2) + "\n")
        new.replace(self._state)

    def release(self) -> None:
        """The lab has stopped."""
        with suppress(OSError):  # whoever reads what stays there finds that its process has ended
            if self.is_intact():
                self._state.unlink(missing_ok=True)
        os.close(self._file)

    def is_intact(self) -> bool:
        """Whether the directory is still the one that was claimed; not where it was removed or replaced."""
        try:
            return os.path.samestat(os.fstat(self._file), self._state.with_name(_LOCK).stat())
        except FileNotFoundError:
            return False
        except OSError:
            return True  # a disk that does not answer just now


def is_claimed(data_dir: Path) -> bool:
    """Whether a lab runs in this directory. Raises ``LabError`` for a directory of another user."""
    private.require_own(data_dir)
    try:
        descriptor = private.open_file(data_dir / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared, so that those who look do not keep each other from it; a lab that starts waits for them.
        return not _takes(descriptor, fcntl.LOCK_SH, 0.0)
    finally:
        os.close(descriptor)


def _takes(descriptor: int, lock: int, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        else:
            return True


def read(data_dir: Path) -> LabState | None:
    """The lab that runs in this directory; ``None`` where none does.

    Raises ``LabError`` for a directory of another user, and where a lab runs whose state is not to be believed: it
    has another version's form, or names a process that is not the one that wrote it.
    """
    deadline = time.monotonic() + _FIRST_STATE_SECONDS
    while is_claimed(data_dir):
        try:
            return _believed(data_dir / STATE)
        except LabError as error:
            # A lab that has just claimed the directory has yet to replace what its predecessor left.
            if time.monotonic() >= deadline:
                raise LabError(
                    f"a lab runs in {data_dir}, but which process it is cannot be told: {error}; "
                    f"end the process that holds {data_dir / _LOCK} yourself"
                ) from None
        time.sleep(0.01)
    return None


def is_running(state: LabState) -> bool:
    """Whether the process that wrote the state still runs, and its number has not gone to another one."""
    return _started(state.pid) == state.started


def this_process() -> tuple[int, str]:
    """Return the calling process as a state names it: its number, and when it was started."""
    return os.getpid(), _started(os.getpid())


def _believed(path: Path) -> LabState:
    from pydantic import TypeAdapter, ValidationError  # not loaded by the supervisor, which only writes

    try:
        with os.fdopen(private.open_file(path, os.O_RDONLY), "rb") as file:
            found = TypeAdapter(LabState).validate_json(file.read(_BYTES_MAX), strict=True)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LabError(
            f"{path} is damaged, or of another version of the lab: {where}{': ' if where else ''}{first['msg']}"
        ) from None
    if not is_running(found):
        raise LabError(f"{path} is of a lab that has ended")
    return found


def _started(pid: int) -> str:
    """When the process was started, in the system's own unit; empty where there is none."""
    return _ticks(pid) if sys.platform == "linux" else _create_time(pid)


def _ticks(pid: int) -> str:
    """Ticks since the boot, which no change of the clock changes (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19] if pid > 0 else ""
    except OSError:
        return ""


def _create_time(pid: int) -> str:
    import psutil  # which the supervisor does without where it can

    try:
        return str(psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError):
        return ""


def require(data_dir: Path) -> LabState:
    """The lab that runs in this directory. Raises ``LabError`` where none does."""
    state = read(data_dir)
    if state is None:
        raise LabError(f"no lab runs in {data_dir}; `lab up` starts one")
    return state


def client_url(data_dir: Path) -> str:
    """Where the client service of the running lab listens. Raises ``LabError`` where there is none."""
    return _url(data_dir, "client")


def primary_url(data_dir: Path) -> str:
    """Where the primary of the running lab listens. Raises ``LabError`` where there is none."""
    return _url(data_dir, "primary")


def _url(data_dir: Path, role: str) -> str:
    node = require(data_dir).node_or_none(role)
    if node is None:
        raise LabError(f"the lab has no {role}")
    return node.url
