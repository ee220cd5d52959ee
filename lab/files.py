"""Files that are named on the command line: regular files and pipes, read within a bound."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lab.errors import LabError


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file opened for reading; ``-`` is standard input. Raises ``LabError`` for a directory or a device.

    A device may have no end, and opening one may do something.
    """
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "a device or a socket"
            raise LabError(f"{path} cannot be read: it is {kind}, not a file")
        file: IO[bytes] = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None
    with file:
        yield file


def text(path: Path, bytes_max: int) -> str:
    """The text of a file of UTF-8, without a byte order mark. Raises ``LabError``."""
    with opened(path) as file:
        try:
            raw = file.read(bytes_max + 1)
        except OSError as error:
            raise unreadable(path, error) from None
    if len(raw) > bytes_max:
        raise LabError(f"{path} has more than {bytes_max:,} bytes, which is the bound")
    return decoded(raw, f"{path}, ")


def decoded(raw: bytes, where: str = "") -> str:
    """The text that UTF-8 stands for, without a byte order mark. Raises ``LabError`` that names the line."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise LabError(f"{where}line {line}: not UTF-8: {error.reason}") from None


def unreadable(path: Path, error: OSError) -> LabError:
    """What to report for a file that the system does not hand out."""
    return LabError(f"{path} cannot be read: {error.strerror}")
