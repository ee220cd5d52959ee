"""``lab load``."""

import sys
import time
from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from lab import files, loading
from lab.cli.options import data_dir_option
from lab.local import state
from lab.terminal import console, plain


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@data_dir_option
@click.option("--primary-url", help="URL of the primary, if the lab does not run from the data directory.")
@click.option("--skip", type=click.IntRange(0), default=0, help="Number of items to skip: those already loaded.")
def load(file: Path, data_dir: Path, primary_url: str | None, skip: int) -> None:
    """Write every item of FILE: one JSON object with key and value per line, or an array of them; - is standard input.

    Exit status 1 if an item was rejected; the others are loaded.

    \b
    Example: lab load customers.jsonl
    Example: seq 100000 | jq -c '{key: "key-\\(. % 1000)", value: .}' | lab load -
    """
    out = console()
    url = primary_url or state.url(data_dir, "primary")
    columns = (BarColumn(), DownloadColumn(), TextColumn("{task.fields[items]:,} items"), TimeRemainingColumn())
    total = file.stat().st_size if file.is_file() else None
    began = time.monotonic()
    loaded = loading.Loaded()
    try:
        with files.opened(file) as source, Progress(*columns, console=out, transient=True) as progress:
            bar = progress.add_task("", total=total, items=0)

            def on_batch(size: int) -> None:
                progress.update(bar, advance=size, items=loaded.acknowledged + loaded.rejected)

            loading.load(source, url, loaded, skip=skip, on_batch=on_batch)
    finally:
        for sentence in loaded.sentences:
            click.echo(plain(sentence), err=True)
    seconds = time.monotonic() - began
    rate = loaded.acknowledged / seconds
    out.print(f"{loaded.acknowledged:,} items written in {seconds:.1f} s, {rate:,.0f} per second.")
    if loaded.rejected:
        click.echo(f"{loaded.rejected:,} items were rejected.", err=True)
        sys.exit(1)
