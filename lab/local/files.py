"""Files and directories of the lab: readable only by the user who runs it, and on disks with free space."""

import errno
import os
import shutil
import stat
from pathlib import Path

from lab.errors import LabError

# Enough for the processes' writes to a nearly full disk, mainly logs.
FREE_MB_MIN = 16


def directory(path: Path) -> Path:
    """Create the directory with mode 0700 if it is missing, and return it; an existing one keeps its mode.

    Raises ``LabError`` when it cannot be created, belongs to another user, or every user can write to it: a user who
    can create a file there could make the lab write through it, or stop a process of this user.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        require_own(path)
        if path.stat().st_mode & stat.S_IWOTH:
            raise LabError(f"every user can write to {path}; `chmod 700 {path}`, or choose another --data-dir")
    except OSError as error:
        raise LabError(f"{path} cannot be used as data directory: {error.strerror}") from None
    return path


def subdirectory(path: Path) -> Path:
    """A directory in the data directory, made private even if an earlier version created it. Raises ``LabError``."""
    directory(path).chmod(0o700)
    return path


def require_own(path: Path) -> None:
    """Raise ``LabError`` when the path, or what it links to, exists and belongs to another user."""
    for follow in (False, True):
        try:
            owner = path.stat(follow_symlinks=follow).st_uid
        except FileNotFoundError:
            return
        except OSError as error:
            raise LabError(f"{path} cannot be used as data directory: {error.strerror}") from None
        if owner != os.geteuid():
            raise LabError(f"{path} belongs to user {owner}, not to you; choose another --data-dir")


def open_file(path: Path, flags: int) -> int:
    """Open a regular file; a new one has mode 0600. Raises ``OSError``, also for a symbolic link."""
    # O_NONBLOCK: opening a pipe would wait for its other end.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise OSError(errno.EPERM, "not a regular file of this user", str(path))
    if found.st_mode & 0o077 and flags & os.O_CREAT:
        os.fchmod(descriptor, 0o600)  # an earlier version created it readable for all
    return descriptor


def shortage(data_dir: Path) -> str | None:
    """A message about a disk of the data directory with less than ``FREE_MB_MIN`` left, or ``None``."""
    seen: set[int] = set()
    for path in (data_dir, *data_dir.glob("*/"), *data_dir.glob("replicas/*/")):
        try:
            device = path.stat().st_dev
            if device in seen:
                continue
            seen.add(device)
            usage = shutil.disk_usage(path)
        except OSError:
            continue  # removed meanwhile
        if usage.free < FREE_MB_MIN * 10**6:
            left = f"{usage.free / 1e6:.1f} MB of {usage.total / 1e6:,.0f} MB are left"
            return f"the disk of {path} is full: {left}, and a lab needs {FREE_MB_MIN} MB"
    return None
