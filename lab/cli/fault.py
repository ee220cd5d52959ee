"""``lab fault``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from lab.cli.options import client_option
from lab.text import plain


@click.group()
def fault() -> None:
    """Break a replica on purpose, and mend it."""


@fault.command("start")
@click.argument("replica")
@click.argument("name", metavar="FAULT")
@click.argument("given", metavar="[PARAMETER=VALUE]...", nargs=-1)
@client_option
def fault_start(replica: str, name: str, given: tuple[str, ...], **place: Any) -> None:
    """Begin a fault; `lab fault list` says which there are. With duration_ms=5000 it ends by itself.

    \b
    Example: lab fault start lab14-replica2 pause duration_ms=5000
    """
    from lab import faults

    found = faults.Faults(**place).begin(replica, name, faults.parameters(name, given))
    until = f", until {found['until']}" if found["until"] else ""
    click.echo(plain(f"{found['fault']} on {found['replica']}{until}."))


@fault.command("list")
@client_option
@click.option("--json", "as_json", is_flag=True, help="For scripts, with the parameters of every fault.")
def fault_list(as_json: bool, **place: Any) -> None:
    """Show the faults in force, and which there are.

    \b
    Example: lab fault list
    """
    from lab import faults
    from lab.terminal import console

    found = faults.Faults(**place).show()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    out = console()
    out.print(faults.table(found))
    out.print(f"\nThere are: {', '.join(faults.available(found))}")


@fault.command("end")
@click.argument("replica", required=False)
@click.argument("name", metavar="FAULT", required=False)
@client_option
def fault_end(replica: str | None, name: str | None, **place: Any) -> None:
    """End a fault of a replica; without FAULT all of it, without REPLICA those of all.

    Exit status 1 if a replica did not answer.

    \b
    Example: lab fault end lab14-replica2 pause
    """
    from lab import faults

    answers = faults.Faults(**place).end(replica, name)
    for one, answer in answers.items():
        if "ended" in answer:
            click.echo(plain(f"{one}: {', '.join(answer['ended']) or 'nothing was in force'}"))
        else:
            click.echo(plain(f"{one}: {answer.get('error')}"), err=True)
    sys.exit(0 if all("ended" in answer for answer in answers.values()) else 1)


@fault.command("resync")
@click.argument("replica")
@client_option
def fault_resync(replica: str, **place: Any) -> None:
    """Replace a replica's content by a snapshot of the primary's, which repairs what is corrupt.

    \b
    Example: lab fault resync lab14-replica2
    """
    from lab import faults

    faults.Faults(**place).resync(replica)
    click.echo(f"{replica} takes a snapshot as soon as that is due there.")
