"""What several commands ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


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
