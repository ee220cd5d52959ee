"""``lab load``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from lab.cli.options import data_dir_option
from lab.text import plain


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@data_dir_option
@click.option("--primary-url", help="The primary, where the lab does not run from the data directory.")
@click.option("--skip", type=click.IntRange(0), default=0, help="Number of items to leave out: those already loaded.")
def load(file: Path, data_dir: Path, primary_url: str | None, skip: int) -> None:
    """Write every item of FILE, a JSON object with key and value a line, or an array of them; - is standard input.

    Exit status 1 if an item was refused; the others are loaded.

    \b
    Example: lab load customers.jsonl
    Example: seq 100000 | jq -c '{key: "key-\\(. % 1000)", value: .}' | lab load -
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from lab import files, loading
    from lab.local import state
    from lab.terminal import console

    out = console()
    url = primary_url or state.primary_url(data_dir)
    columns = (BarColumn(), DownloadColumn(), TextColumn("{task.fields[items]:,} items"), TimeRemainingColumn())
    total = file.stat().st_size if file.is_file() else None
    began = time.monotonic()
    sentences: list[str] = []
    try:
        with files.opened(file) as source, Progress(*columns, console=out, transient=True) as progress:
            bar = progress.add_task("", total=total, items=0)

            def on_batch(found: loading.Loaded, size: int) -> None:
                sentences[:] = found.sentences
                progress.update(bar, advance=size, items=found.acknowledged + found.refused)

            found = loading.load(source, url, skip=skip, on_batch=on_batch)
    finally:
        for sentence in sentences:
            click.echo(plain(sentence), err=True)
    seconds = time.monotonic() - began
    out.print(f"{found.acknowledged:,} items written in {seconds:.1f} s, {found.acknowledged / seconds:,.0f} a second.")
    if found.refused:
        click.echo(f"{found.refused:,} items were refused.", err=True)
        sys.exit(1)
