"""``lab logs``."""

import time
from itertools import chain
from pathlib import Path

import click

from lab.cli.options import data_dir_option
from lab.local import logs as log_files


@click.command()
@click.argument("nodes", nargs=-1)
@data_dir_option
@click.option("--lines", type=click.IntRange(0, 100_000), default=20, help="Lines per node.")
@click.option("--follow", is_flag=True, help="Continue with new lines until Ctrl-C.")
def logs(nodes: tuple[str, ...], data_dir: Path, lines: int, *, follow: bool) -> None:
    """Show the logs of all processes, or of the named ones.

    \b
    Example: lab logs replica1 replica2 --follow
    """
    paths = log_files.find(data_dir, nodes)
    width = max(len(path.stem) for path in paths)
    for name, line in chain(log_files.last_lines(paths, lines), log_files.follow(paths, time.sleep) if follow else ()):
        click.echo(f"{name:{width}}  {line}")
