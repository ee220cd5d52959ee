"""Processes in the foreground of a test."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def foreground(line: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process with captured output; kill it at the end if it still runs, even if the test fails."""
    chosen = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    with subprocess.Popen(line, text=True, **chosen) as process:
        try:
            yield process
        finally:
            process.kill()
