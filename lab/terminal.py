"""The terminal as the lab writes to it."""

import sys

from rich.console import Console

_PIPE_COLUMNS = 120


def console() -> Console:
    """Standard output: as wide as the terminal, and wide enough where there is none."""
    return Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
