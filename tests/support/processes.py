"""Processes that a test starts in the foreground."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def foreground(line: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process with its output, killed at the end where it still runs, also when the test fails."""
    chosen = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    with subprocess.Popen(line, text=True, **chosen) as process:
        try:
            yield process
        finally:
            process.kill()
