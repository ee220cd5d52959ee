"""Terminal output."""

import json
import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

_PIPE_COLUMNS = 120


def plain(text: str, keep: str = "\n\t") -> str:
    """Text with a dot for every unprintable character, so that a name cannot control the terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() or character in keep else "·" for character in text)


class _PlainConsole(Console):
    """Renders text with ``plain``; only the lab's code sets styles."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def console(*, quiet: bool = False) -> Console:
    """Standard output: as wide as the terminal; in a pipe, wide and without added line breaks."""
    in_terminal = sys.stdout.isatty()
    width = None if in_terminal else _PIPE_COLUMNS
    return _PlainConsole(soft_wrap=not in_terminal, highlight=False, width=width, quiet=quiet)


def table(*columns: str, right: Iterable[str] = (), title: str | None = None, no_wrap: bool = False) -> Table:
    """An empty table without lines; the columns in ``right`` are aligned to the right."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", no_wrap=no_wrap)
    return shown


def print_json(found: Any) -> None:
    click.echo(json.dumps(found, indent=2))
