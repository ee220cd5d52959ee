"""``lab logs``: what the processes of the lab wrote, each line with its name in front."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from lab.errors import LabError
from lab.text import plain

_FOLLOW_SECONDS = 0.2


def find(data_dir: Path, names: tuple[str, ...]) -> list[Path]:
    """The log files of these processes, of all where none is named. Raises ``LabError``."""
    known = sorted((data_dir / "logs").glob("*.log"))
    if not known:
        raise LabError(f"there are no logs in {data_dir}; `lab up` starts a lab there")
    by_name = {path.stem: path for path in known}
    by_name |= {name.split("-", 1)[1]: path for name, path in by_name.items() if "-" in name}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise LabError(f"there is no {unknown[0]!r}; there are {', '.join(path.stem for path in known)}")
    return [by_name[name] for name in names] if names else known


def last_lines(paths: list[Path], count: int) -> Iterator[tuple[str, str]]:
    """The last lines of each file, as (name, line)."""
    for path in paths:
        with path.open(errors="replace") as file:
            yield from ((path.stem, plain(line.rstrip("\n"))) for line in deque(file, maxlen=count))


def follow(paths: list[Path], sleep: Callable[[float], None]) -> Generator[tuple[str, str], None, None]:
    """New lines as they are written, without end."""
    with ExitStack() as opened:
        files = {path.stem: opened.enter_context(path.open(errors="replace")) for path in paths}
        for file in files.values():
            file.seek(0, 2)
        while True:
            quiet = True
            for name, file in files.items():
                for line in _complete_lines(file):
                    quiet = False
                    yield name, line
            if quiet:
                sleep(_FOLLOW_SECONDS)


def _complete_lines(file: IO[str]) -> Iterator[str]:
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(start)
            return
        yield plain(line.rstrip("\n"))
