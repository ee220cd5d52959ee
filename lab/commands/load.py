"""``lab load``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import IO

import click

from lab.commands.options import data_dir_option


@click.command()
@click.argument("file", type=click.File("rb"))
@data_dir_option
@click.option("--primary-url", help="The primary, where the lab does not run from the data directory.")
@click.option("--skip", type=click.IntRange(0), default=0, help="Leave out so many lines, which are loaded already.")
def load(file: IO[bytes], data_dir: Path, primary_url: str | None, skip: int) -> None:
    """Write every line of FILE, a JSON object with key and value each; - is standard input.

    Exit status 1 where a line was refused; the others are loaded.

    \b
    Example: lab load customers.jsonl
    Example: seq 100000 | jq -c '{key: "key-\\(. % 1000)", value: .}' | lab load -
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from lab import loading, state
    from lab.terminal import console

    out = console()
    url = primary_url or state.primary_url(data_dir)
    columns = (BarColumn(), DownloadColumn(), TextColumn("{task.fields[lines]:,} lines"), TimeRemainingColumn())
    total = Path(file.name).stat().st_size if Path(file.name).is_file() else None
    began = time.monotonic()
    with Progress(*columns, console=out, transient=True) as progress:
        bar = progress.add_task("", total=total, lines=0)

        def on_batch(found: loading.Loaded, size: int) -> None:
            progress.update(bar, advance=size, lines=found.acknowledged + found.refused)

        found = loading.load(file, url, skip=skip, on_batch=on_batch)
    seconds = time.monotonic() - began
    out.print(f"{found.acknowledged:,} lines written in {seconds:.1f} s, {found.acknowledged / seconds:,.0f} a second.")
    for sentence in found.sentences:
        click.echo(sentence, err=True)
    if found.refused:
        click.echo(f"{found.refused:,} lines were refused.", err=True)
        sys.exit(1)
