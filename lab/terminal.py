"""The terminal as the lab writes to it."""

import sys

from rich.console import Console

_PIPE_COLUMNS = 120


def console() -> Console:
    """Standard output: as wide as the terminal, and in a pipe wide enough and without line breaks of its own."""
    in_terminal = sys.stdout.isatty()
    return Console(soft_wrap=not in_terminal, highlight=False, width=None if in_terminal else _PIPE_COLUMNS)
