"""``lab fault``: inject faults into replicas, and repair them."""

import sys
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError
from rich.table import Table
from rich.text import Text

from lab import client
from lab.cli.options import SHOWN_MAX, assignments, client_option, json_option
from lab.errors import LabError
from lab.terminal import console, plain, print_json, table
from nodes.http.peers import segment
from nodes.replica.faults import FAULTS

_LOG = "log"  # names the log server in place of a replica
Model = TypeVar("Model", bound=BaseModel)


@click.group()
def fault() -> None:
    """Inject faults into replicas and the log server, and repair them."""


@fault.command("start")
@click.argument("replica")
@click.argument("name", metavar="FAULT")
@click.argument("given", metavar="[PARAMETER=VALUE]...", nargs=-1)
@client_option
def fault_start(replica: str, name: str, given: tuple[str, ...], client_url: str) -> None:
    """Start a fault; `lab fault list` lists them. With duration_ms=5000 it ends automatically.

    REPLICA is "log" for faults of the log server: failover, failback and isolate-master. They need `lab up --ha`.

    \b
    Example: lab fault start lab14-replica2 pause duration_ms=5000
    """
    values = _log_parameters(name, given) if replica == _LOG else parameters(name, given)
    found = client.post(f"{client_url}/faults", {"replica": replica, "fault": name, **values})
    until = f", until {found['until']}" if found["until"] else ""
    click.echo(plain(f"{found['fault']} on {found['replica']}{until}."))


@fault.command("list")
@client_option
@json_option(", with the parameters of every fault")
def fault_list(client_url: str, *, as_json: bool) -> None:
    """Show the active and the available faults.

    \b
    Example: lab fault list
    """
    answer = client.get(f"{client_url}/faults")
    found = {**answer["replicas"], **({_LOG: answer["log"]} if "log" in answer else {})}
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(active(found))
    available = {name for answer in found.values() for name in answer.get("available", {})}
    out.print(f"\nAvailable: {', '.join(sorted(available))}")


@fault.command("end")
@click.argument("replica", required=False)
@click.argument("name", metavar="FAULT", required=False)
@client_option
def fault_end(replica: str | None, name: str | None, client_url: str) -> None:
    """End a fault of a replica; without FAULT all faults of the replica, without REPLICA all faults of all replicas.

    Exit status 1 if a replica did not respond.

    \b
    Example: lab fault end lab14-replica2 pause
    """
    if replica is None:
        answers = client.ask("POST", f"{client_url}/faults/reset")["replicas"]
    else:
        path = "".join(f"/{segment(part)}" for part in (replica, name) if part is not None)
        answers = {replica: client.ask("DELETE", f"{client_url}/faults{path}")}
    for one, answer in answers.items():
        if "ended" in answer:
            click.echo(plain(f"{one}: {', '.join(answer['ended']) or 'no fault was active'}"))
        else:
            click.echo(plain(f"{one}: {answer.get('error')}"), err=True)
    sys.exit(0 if all("ended" in answer for answer in answers.values()) else 1)


@fault.command("resync")
@click.argument("replica")
@client_option
def fault_resync(replica: str, client_url: str) -> None:
    """Replace a replica's content with a snapshot of the primary's, which repairs corrupt data.

    \b
    Example: lab fault resync lab14-replica2
    """
    client.post(f"{client_url}/resync", {"replica": replica})
    click.echo(f"Resync requested; {replica} installs a snapshot once its delay has passed.")


def parameters(fault: str, given: tuple[str, ...]) -> dict[str, Any]:
    """Parse each ``name=value`` as the type of the fault's parameter. Raises ``LabError``."""
    if fault not in FAULTS:
        raise LabError(f"unknown fault {fault[:SHOWN_MAX]!r}; choose from {', '.join(sorted(FAULTS))}")
    found = _parsed(FAULTS[fault], fault, given)
    return found.model_dump(mode="json", exclude={"fault"}, exclude_unset=True)


def _log_parameters(fault: str, given: tuple[str, ...]) -> dict[str, Any]:
    from nodes.client.log_faults import LogFault  # takes time, and few commands need it

    found = _parsed(LogFault, fault, (f"replica={_LOG}", *given))
    return found.model_dump(mode="json", exclude={"fault", "replica"}, exclude_unset=True)


def _parsed(model: type[Model], fault: str, given: tuple[str, ...]) -> Model:
    texts = {"fault": fault}
    for name, text in assignments(given, "duration_ms=5000"):
        if name in texts:
            raise LabError(f"parameter {name[:SHOWN_MAX]!r} is given twice")
        texts[name] = text
    try:
        return model.model_validate_strings(texts, strict=False)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or fault
        raise LabError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


def active(found: dict[str, Any]) -> Table:
    shown = table("replica", "fault", "parameters", "since", "until")
    for replica, answer in found.items():
        if "faults" not in answer:
            shown.add_row(*map(Text, (replica, str(answer.get("error")))))
        for fault in answer.get("faults", []):
            values = ", ".join(f"{name}={value}" for name, value in fault["parameters"].items())
            since, until = (fault[name] and fault[name][11:19] for name in ("since", "until"))
            shown.add_row(*map(Text, (replica, fault["fault"], values, since, until or "until ended")))
    return shown
