"""Files and directories that belong to the user who runs the lab, and that no other user can read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from lab.errors import LabError


def directory(path: Path) -> Path:
    """Make the directory with mode 0700 where it is missing, and return it; one that is there keeps its mode.

    Raises ``LabError`` when it cannot be made, belongs to another user, or every user can write to it: whoever can put
    a file there could have the lab write through it, or stop a process of this user.
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
    """A directory of the lab's own in there, private also where an earlier version made it. Raises ``LabError``."""
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
    """Open a regular file, made with mode 0600 where ``flags`` say so. Raises ``OSError``, also for a symbolic link."""
    # O_NONBLOCK: opening a pipe would wait for its other end.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise OSError(errno.EPERM, "not a regular file of this user", str(path))
    if found.st_mode & 0o077 and flags & os.O_CREAT:
        os.fchmod(descriptor, 0o600)  # an earlier version made it readable for all
    return descriptor
