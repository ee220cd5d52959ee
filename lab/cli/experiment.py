"""``lab experiment``: submit experiments, follow them, show their results."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from lab import client, files, plain_yaml
from lab.cli.options import SHOWN_MAX, assignments, client_option, json_option
from lab.client import NodeUnreachable
from lab.errors import LabError
from lab.report import tables
from lab.terminal import console, print_json, table
from nodes.experiments.spec import ENDED, KINDS
from nodes.http import strict_json
from nodes.http.peers import segment

_BAR_WIDTH = 40
_POLL_SECONDS = 0.25
_AWAY_SECONDS = 30.0  # how long the client service can be unreachable while following an experiment
_TIMEOUT_SECONDS = 30.0
_FILE_BYTES_MAX = 256 * 1024


@click.group()
def experiment() -> None:
    """Measure the running lab in the background, and compare with the prediction."""


@experiment.command("run")
@click.argument("what", metavar="KIND|FILE.yaml")
@click.option(
    "--set", "changes", multiple=True, metavar="PATH=VALUE", help="Parameter to change (repeatable); the value is JSON."
)
@client_option
@json_option()
def experiment_run(what: str, changes: tuple[str, ...], client_url: str, *, as_json: bool) -> None:
    """Run an experiment and wait for it: windows, staleness, levels, quorum, or a spec in a file.

    Ctrl-C cancels it. Replica settings that it changes are restored in any case. Exit status 1 if it failed.

    \b
    Example: lab experiment run windows --set writes=50 --set settings.lab14-replica2.delay_ms=800
    """
    out = console(quiet=as_json)
    spec = read(what, changes)
    with _ctrl_c_held_back() as release:  # until the id is known, by which the experiment can be canceled
        name = submit(client_url, spec)
        try:
            release()
            out.print(f"experiment {name}")
            found = finish(client_url, name, out)
        except KeyboardInterrupt:
            out.print("Canceling the experiment; its settings are restored")
            found = _cancel(client_url, name)
    show(found, out)
    if as_json:
        print_json(found)
    elif found["state"] == "finished":
        out.print(f"\n`lab experiment report {name} --out report.html` writes it as a page.")
    sys.exit(0 if found["state"] == "finished" else 1)


@experiment.command("list")
@client_option
@json_option()
def experiment_list(client_url: str, *, as_json: bool) -> None:
    """Show the queued and running experiments, and the last 200 that have ended.

    \b
    Example: lab experiment list
    """
    found = client.get(f"{client_url}/experiments", _TIMEOUT_SECONDS)["experiments"]
    if as_json:
        print_json(found)
        return
    shown = table("id", "kind", "state", "progress", "submitted", "reason", right={"progress"})
    for one in found:
        submitted = one["submitted_at"][:19].replace("T", " ")
        cells = (one["id"], one["kind"], one["state"], f"{one['progress']:.0%}", submitted, one["reason"] or "")
        shown.add_row(*map(Text, cells))
    console().print(shown)


@experiment.command("show")
@click.argument("name", metavar="ID")
@client_option
@json_option(", with every measurement")
def experiment_show(name: str, client_url: str, *, as_json: bool) -> None:
    """Show an experiment and its result so far.

    \b
    Example: lab experiment show 3f2c9a1b7d40
    """
    if as_json:
        print_json(complete(client_url, name))
    else:
        show(client.get(_url(client_url, name), _TIMEOUT_SECONDS), console())


@experiment.command("cancel")
@click.argument("name", metavar="ID")
@client_option
def experiment_cancel(name: str, client_url: str) -> None:
    """Cancel an experiment and restore the settings that it changed.

    \b
    Example: lab experiment cancel 3f2c9a1b7d40
    """
    show(_cancel(client_url, name), console())


@experiment.command("report")
@click.argument("name", metavar="ID")
@click.option(
    "--out",
    type=click.File("w", encoding="utf-8", lazy=True),
    default="report.html",
    help="Output file for the page; - for standard output.",
)
@client_option
def experiment_report(name: str, out: Any, client_url: str) -> None:
    """Write a finished experiment as one page: configuration, charts, tables, and every measurement.

    \b
    Example: lab experiment report 3f2c9a1b7d40 --out report.html
    """
    from lab.report import page  # requires matplotlib, which is optional

    out.write(page.page(complete(client_url, name)))
    click.echo(f"Report written to {out.name}.", err=True)


def finish(client_url: str, name: str, out: Console) -> dict[str, Any]:
    """Show an experiment's progress, and return the experiment when it has ended. Raises ``LabError``."""
    columns = (TextColumn("{task.description}"), BarColumn(_BAR_WIDTH), TaskProgressColumn(), TimeRemainingColumn())
    answered_at = time.monotonic()
    with Progress(*columns, console=out, transient=True) as progress:
        bar = progress.add_task(name, total=1.0)
        while True:
            try:
                found = client.get(_url(client_url, name), _TIMEOUT_SECONDS)
            except NodeUnreachable as error:
                if time.monotonic() - answered_at > _AWAY_SECONDS:
                    raise LabError(f"{error}; the experiment continues: `lab experiment show {name}`") from None
            else:
                answered_at = time.monotonic()
                progress.update(bar, completed=found["progress"], description=f"{found['kind']}, {found['state']}")
                if found["state"] in ENDED:
                    return found
            time.sleep(_POLL_SECONDS)


@contextmanager
def _ctrl_c_held_back() -> Iterator[Callable[[], object]]:
    """Hold Ctrl-C back until the function that this yields is called, or to the end."""
    release = partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield release
    finally:
        release()


def submit(client_url: str, spec: dict[str, Any]) -> str:
    return str(client.post(f"{client_url}/experiments", spec, _TIMEOUT_SECONDS)["id"])


def complete(client_url: str, name: str) -> dict[str, Any]:
    return client.get(f"{_url(client_url, name)}?raw=true", _TIMEOUT_SECONDS)


def _cancel(client_url: str, name: str) -> dict[str, Any]:
    client.ask("DELETE", _url(client_url, name), None, _TIMEOUT_SECONDS)
    return finish(client_url, name, Console(quiet=True))


def _url(client_url: str, name: str) -> str:
    return f"{client_url}/experiments/{segment(name)}"


def show(found: dict[str, Any], out: Console) -> None:
    reason = f": {found['reason']}" if found["reason"] else ""
    out.print(f"{found['kind']}, {found['state']}{reason}", markup=False)
    if found["result"]:
        for part in tables.tables(found["kind"], found["spec"], found["result"]):
            out.print(part)


def read(what: str, changes: tuple[str, ...]) -> dict[str, Any]:
    """The experiment of this kind or in this file, with changes ``path=value``. Raises ``LabError``."""
    try:
        spec = {"kind": what} if what in KINDS else plain_yaml.load(files.text(Path(what), _FILE_BYTES_MAX))
    except LabError as error:
        raise LabError(f"{error}; an experiment is {', '.join(KINDS)} or a file") from None
    except ValueError as error:
        raise LabError(f"{what[:SHOWN_MAX]} is not YAML: {error}") from None
    if not isinstance(spec, dict):
        raise LabError(f"{what} must be a mapping, such as `kind: windows`")
    for path, value in assignments(changes, "rate=20"):
        _set(spec, path, value)
    return spec


def _set(spec: dict[str, Any], path: str, text: str) -> None:
    *parents, last = path.split(".")
    for name in parents:
        spec = spec.setdefault(name, {})
        if not isinstance(spec, dict):
            raise LabError(f"--set {path[:SHOWN_MAX]}: {name[:SHOWN_MAX]} is not a mapping")
    try:
        spec[last] = strict_json.loads(text.encode())
    except strict_json.Refused as error:
        raise LabError(f"--set {path[:SHOWN_MAX]}: {error}") from None
    except ValueError:  # not JSON: the text itself
        spec[last] = text
