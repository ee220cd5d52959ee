"""What a running lab says of itself in its data directory, and the lock that says that it runs."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from lab.errors import LabError


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
    """A running lab. ``ready``: everything was healthy once."""

    pid: int
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
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = (data_dir / "lab.lock").open("a")
        except OSError as error:
            raise LabError(f"{data_dir} cannot be used as data directory: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise LabError(f"a lab runs in {data_dir} already; `lab status` shows it, `lab down` stops it") from None
        self._state = data_dir / "lab.json"

    def write(self, state: LabState) -> None:
        """Say how the lab is now."""
        new = self._state.with_suffix(".new")
        new.write_text(json.dumps(asdict(state), indent=2) + "\n")
        new.replace(self._state)

    def release(self) -> None:
        """The lab has stopped."""
        self._state.unlink(missing_ok=True)
        self._file.close()


def is_claimed(data_dir: Path) -> bool:
    """Whether a lab runs in this directory."""
    try:
        with (data_dir / "lab.lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read(data_dir: Path) -> LabState | None:
    """The lab that runs in this directory; ``None`` where none does."""
    if not is_claimed(data_dir):
        return None
    try:
        found: dict[str, Any] = json.loads((data_dir / "lab.json").read_text())
    except (OSError, ValueError):
        return None  # it has only just begun
    state = LabState(**(found | {"nodes": [NodeState(**node) for node in found["nodes"]]}))
    return state if _is_alive(state.pid) else None


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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
