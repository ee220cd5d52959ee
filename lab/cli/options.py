"""What several commands ask for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


class Number(click.FloatRange):
    """A number in a range; "nan" is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number", param, ctx)
        return found


class OutputFile(click.Path):
    """A file to write, refused before any work is done for it if it cannot be written there."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        path: Path = super().convert(value, param, ctx)  # type: ignore[assignment]
        if not path.exists() and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            self.fail(f"{str(path)!r} cannot be written: {str(path.parent)!r} is no directory to write to", param, ctx)
        return path


def data_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the lab keeps what it keeps."""
    kind = click.Path(path_type=Path, file_okay=False)
    help_text = "Where the lab keeps its data, logs and state."
    option = click.option("--data-dir", type=kind, default=Path(".lab"), show_default=True, help=help_text)
    return option(command)


def client_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and for a lab that does not run from there the client service."""
    help_text = "The client service, where the lab does not run from the data directory."
    return data_dir_option(click.option("--client-url", help=help_text)(command))
