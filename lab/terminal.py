"""The terminal as the lab writes to it."""

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lab.text import plain

_PIPE_COLUMNS = 120


class _PlainConsole(Console):
    """Renders text by ``plain``; what styles it comes from the lab itself."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See ``Console``."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def console() -> Console:
    """Standard output: as wide as the terminal, and in a pipe wide enough and without line breaks of its own."""
    in_terminal = sys.stdout.isatty()
    return _PlainConsole(soft_wrap=not in_terminal, highlight=False, width=None if in_terminal else _PIPE_COLUMNS)
