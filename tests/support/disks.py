"""Small disks that tests fill."""

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_BYTES = 64 * 2**20


@contextmanager
def disk(path: Path, size_bytes: int = DISK_BYTES, owner: int = 0) -> Iterator[None]:
    path.mkdir(parents=True)
    options = f"size={size_bytes},mode=700,uid={owner}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def full(path: Path) -> Iterator[None]:
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    try:
        yield
    finally:
        ballast.unlink()
