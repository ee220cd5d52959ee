"""``lab down``."""

from pathlib import Path

import click

from lab.cli.options import data_dir_option
from lab.local import detached


@click.command()
@data_dir_option
def down(data_dir: Path) -> None:
    """Stop the lab; its data stays, and `lab up` continues from there.

    \b
    Example: lab down --data-dir /tmp/second-lab
    """
    click.echo("The lab is stopped." if detached.stop(data_dir) else f"No lab runs in {data_dir}.")
