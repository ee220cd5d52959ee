"""``lab experiment``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from lab.cli.options import client_option


@click.group()
def experiment() -> None:
    """Measure on the running lab, in the background, with what is predicted beside it."""


@experiment.command("run")
@click.argument("what", metavar="KIND|FILE.yaml")
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change a parameter; again for more.")
@client_option
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def experiment_run(what: str, changes: tuple[str, ...], as_json: bool, **place: Any) -> None:
    """Run an experiment and wait for it: windows, staleness, levels, or one described in a file.

    Ctrl-C cancels it. Settings of replicas that it changes are put back in any case. Exit status 1 when it failed.

    \b
    Example: lab experiment run windows --set writes=50 --set settings.lab14-replica2.delay_ms=800
    """
    from lab.report import command

    sys.exit(command.run(command.Experiments(**place), what, changes, as_json=as_json))


@experiment.command("list")
@client_option
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def experiment_list(as_json: bool, **place: Any) -> None:
    """Show what waits and runs, and the last 200 that have ended.

    \b
    Example: lab experiment list
    """
    from lab.report import command
    from lab.terminal import console

    found = command.Experiments(**place).all()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        console().print(command.table(found))


@experiment.command("show")
@click.argument("name", metavar="ID")
@client_option
@click.option("--json", "as_json", is_flag=True, help="For scripts, with every single measurement.")
def experiment_show(name: str, as_json: bool, **place: Any) -> None:
    """Show an experiment and its result, as far as there is one.

    \b
    Example: lab experiment show 3f2c9a1b7d40
    """
    from lab.report import command
    from lab.terminal import console

    found = command.Experiments(**place).get(name, raw=as_json)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        command.show(found, console())


@experiment.command("cancel")
@click.argument("name", metavar="ID")
@client_option
def experiment_cancel(name: str, **place: Any) -> None:
    """End an experiment early; what it has changed is put back.

    \b
    Example: lab experiment cancel 3f2c9a1b7d40
    """
    from lab.report import command
    from lab.terminal import console

    command.show(command.Experiments(**place).cancel(name), console())


@experiment.command("report")
@click.argument("name", metavar="ID")
@click.option(
    "--out",
    type=click.File("w", encoding="utf-8", lazy=True),
    default="report.html",
    show_default=True,
    help="Where to write the page; - for standard output.",
)
@client_option
def experiment_report(name: str, out: Any, **place: Any) -> None:  # fmt: skip
    """Make one page of a finished experiment: configuration, charts, tables, and every measurement.

    \b
    Example: lab experiment report 3f2c9a1b7d40 --out report.html
    """
    from lab.report import command, page

    out.write(page.page(command.Experiments(**place).get(name, raw=True)))
    click.echo(f"{out.name} has the report.", err=True)
