"""The log files of the lab's processes: bounded, read, and followed."""

import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import IO

from lab.errors import LabError
from lab.local import files
from lab.terminal import plain

BYTES_MAX = 10 * 2**20
_LINE_BYTES_MAX = 2**16
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_FOLLOW_SECONDS = 0.2


def find(data_dir: Path, names: tuple[str, ...]) -> list[Path]:
    known = sorted(path for path in (data_dir / "logs").glob("*.log") if path.is_file())
    if not known:
        raise LabError(f"no logs in {data_dir}; `lab up` starts a lab there")
    by_name = {path.stem: path for path in known}
    by_name |= {name.split("-", 1)[1]: path for name, path in by_name.items() if "-" in name}
    if unknown := [name for name in names if name not in by_name]:
        raise LabError(f"no process {unknown[0]!r}; known: {', '.join(path.stem for path in known)}")
    return [by_name[name] for name in names] if names else known


def limit(log: Path) -> None:
    """Move the content of a log file that is too long to one older file.

    The file itself stays, because a process has it open for appending. Output between the end of the copy and the
    truncation is lost; if the older file does not fit on the disk, all content is lost.
    """
    try:
        if log.stat().st_size <= BYTES_MAX:
            return
        with os.fdopen(files.open_file(log, os.O_RDWR), "r+b") as full:
            with suppress(OSError), os.fdopen(files.open_file(_older(log), _NEW), "wb") as older:
                shutil.copyfileobj(full, older)
            full.truncate(0)
    except OSError:
        return  # the supervisor tries again a second later


def last_lines(paths: list[Path], count: int) -> Iterator[tuple[str, str]]:
    for path in paths:
        with path.open("rb") as file:
            yield from ((path.stem, _plain(line)) for line in deque(_lines(file), maxlen=count))


def follow(paths: list[Path], sleep: Callable[[float], None]) -> Generator[tuple[str, str], None, None]:
    """New lines as they are written, endlessly."""
    with ExitStack() as opened:
        tails = {path.stem: opened.enter_context(closing(_Tail(path))) for path in paths}
        while True:
            found = [(name, _plain(line)) for name, tail in tails.items() for line in tail.lines()]
            yield from found
            if not found:
                sleep(_FOLLOW_SECONDS)


class _Tail:
    """The end of a log file, which can be emptied (see ``limit``) or replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._file.seek(0, os.SEEK_END)
        self._older = self._older_changed_at()

    def close(self) -> None:
        self._file.close()

    def lines(self) -> Iterator[bytes]:
        yield from _complete_lines(self._file)
        position = self._file.tell()
        if os.fstat(self._file.fileno()).st_size < position:
            before, self._older = self._older, self._older_changed_at()
            if self._older != before:  # it contains the output before the file was emptied
                with _older(self._path).open("rb") as older:
                    older.seek(position)
                    yield from _complete_lines(older)
            self._file.seek(0)
            yield from _complete_lines(self._file)
        elif self._is_replaced():
            self._file.close()
            self._file = self._path.open("rb")
            yield from _complete_lines(self._file)

    def _is_replaced(self) -> bool:
        with suppress(OSError):  # removed, perhaps only for a moment
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        return False

    def _older_changed_at(self) -> int:
        with suppress(OSError):
            return _older(self._path).stat().st_mtime_ns
        return 0


def _older(log: Path) -> Path:
    return log.with_name(log.name + ".1")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; a line that is too long is split."""
    return iter(lambda: file.readline(_LINE_BYTES_MAX), b"")


def _complete_lines(file: IO[bytes]) -> Iterator[bytes]:
    for line in _lines(file):
        if not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def _plain(line: bytes) -> str:
    return plain(line.decode(errors="replace").rstrip("\n"))
