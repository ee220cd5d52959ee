"""``lab probe``: measure the staleness of a replicated store."""

import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource
from rich.console import Console

from lab.cli.options import Number, OutputFile, data_dir_option, json_option, timed_run
from lab.errors import LabError
from lab.local import state
from lab.probe.figures import calibrate, figures, trace
from lab.probe.instrument import Limits, Run
from lab.probe.instrument import run as measure
from lab.probe.table import picture
from lab.probe.target import NotNow, Target
from lab.terminal import console, plain, print_json

STANDARD_OUTPUT = Path("-")
SYSTEMS = ("postgresql", "mysql", "redis", "etcd", "http", "lab")
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@|\b(?:ssl)?(?:password|passwd|pwd)\s*=", re.IGNORECASE)
_FINISHING_SECONDS = 1.0  # of the progress bar, for the last writes to become visible
_WRITES_PER_SECOND_MAX = 100.0
_RATES = {False: 10.0, True: 1.0}  # writes per second, by whether the run is endless
_OF_AN_END = ("seconds", "writes", "as_json", "trace_to", "report_to")
Open = Callable[[], Target]


class Nodes(NamedTuple):
    """Functions that make a node; nothing is opened before its first operation."""

    primary: Open
    replicas: list[Open]


@click.command()
@click.argument("system", type=click.Choice(SYSTEMS))
@click.option("--primary", metavar="ADDRESS", help="Primary of the store; for http, see --write.")
@click.option("--replica", "replicas", metavar="ADDRESS", multiple=True, help="Replica to read from (repeatable).")
@click.option("--write", metavar="TEMPLATE", help="http: how to write, 'PUT http://a/kv/{key}', and a body if needed.")
@click.option(
    "--read",
    "reads",
    metavar="TEMPLATE",
    multiple=True,
    help="http: how to read, 'GET http://b/kv/{key}' (repeatable).",
)
@click.option("--seconds", type=Number(1, 3600), default=60.0, help="Duration of the writes.")
@click.option(
    "--rate", type=Number(0.1, _WRITES_PER_SECOND_MAX), help="Writes per second: by default 10, and 1 with --listen."
)
@click.option("--writes", type=click.IntRange(1, 10_000), default=600, help="Writes at most.")
@click.option("--reads-per-second", type=Number(1, 1000), default=100.0, help="Reads per second and replica at most.")
@click.option("--give-up", type=Number(1, 600), default=30.0, help="Seconds after which an unseen write is given up.")
@click.option("--password", "prompt", is_flag=True, help="Ask for the password; by default LAB_PROBE_PASSWORD.")
@click.option("--trace", "trace_to", type=OutputFile(), help="Output file for the delays, as CSV for `lab predict`.")
@click.option(
    "--report", "report_to", type=OutputFile(allow_dash=True), help="Output file for a page; - for standard output."
)
@click.option("--listen", metavar="[HOST:]PORT", help="Address of an exporter for Prometheus, which runs until Ctrl-C.")
@click.option("--dry-run", is_flag=True, help="Only show the statements, and the rights that are missing.")
@click.option("--remove", is_flag=True, help="Only remove what an earlier run could not remove.")
@data_dir_option
@json_option(", with the bracket of every write")
def probe(*, dry_run: bool, remove: bool, **chosen: Any) -> None:
    """Measure how stale the reads of a store's replicas are.

    One writer raises a number, and one reader per replica looks for it. A write becomes visible, for certain, between
    the sending of the last stale read and the receipt of the first fresh one. What the probe creates is removed at the
    end. Exit status 1 if the run ended early.

    \b
    Example: lab probe lab --seconds 20
             lab probe postgresql --primary service=p --replica service=r1 --dry-run
             lab probe lab --listen 127.0.0.1:9109
    """
    nodes = _nodes(chosen)
    if dry_run:
        sys.exit(_describe(nodes, console()))
    if remove:
        with _opened([nodes.primary]) as (primary,):
            primary.remove()
        console().print("Removed.")
        return
    if not nodes.replicas:
        raise click.UsageError("Give at least one --replica, or for http one --read.")
    chosen["rate"] = chosen["rate"] or _RATES[chosen["listen"] is not None]
    if chosen["listen"] is not None:
        sys.exit(_export(nodes, chosen))
    sys.exit(_run(nodes, chosen, **{name: chosen[name] for name in ("as_json", "trace_to", "report_to")}))


def _run(nodes: Nodes, chosen: dict[str, Any], *, as_json: bool, trace_to: Path | None, report_to: Path | None) -> int:
    if report_to is not None:
        from lab.probe.report import page  # requires matplotlib, which is optional
    if as_json and report_to == STANDARD_OUTPUT:
        raise click.UsageError("Only one of --json and --report can go to standard output.")
    out = console(quiet=as_json or report_to == STANDARD_OUTPUT)
    run = _measured(nodes, _limits(chosen), out)
    if trace_to is not None:
        _write_traces(run, trace_to)
    found = figures(run)
    if chosen["system"] == "lab":
        from lab.probe.lab import configured

        calibrate(found, [configured(replica.settings, chosen["rate"]) for replica in run.replicas])
    if report_to is not None:
        _write(report_to, page(found))
    if as_json:
        print_json(found)
    out.print(picture(found))
    return _not_removed(run) or int(bool(run.ended))


def _measured(nodes: Nodes, limits: Limits, out: Console) -> Run:
    seconds = limits.writes / limits.writes_per_second + _FINISHING_SECONDS
    # Ctrl-C only ends the run, from before anything is created until it is removed.
    with (
        _opened([nodes.primary, *nodes.replicas]) as (primary, *replicas),
        timed_run(out, seconds, f"{limits.writes} writes") as (stop, show),
        _set_by(stop, signal.SIGTERM),
    ):
        return measure(primary, replicas, limits, stop=stop, on_step=lambda done: show(f"{done:,} writes"))


def _export(nodes: Nodes, chosen: dict[str, Any]) -> int:
    from lab.probe.exporter import serving

    context = click.get_current_context()
    for option in context.command.params:
        given = (
            option.name in _OF_AN_END and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        )
        if given:
            raise click.UsageError(f"{option.opts[0]} is for a run with an end, and --listen has none.")
    stop = threading.Event()
    limits = _limits({**chosen, "seconds": math.inf, "writes": sys.maxsize})
    with (
        _opened([nodes.primary, *nodes.replicas]) as (primary, *replicas),
        serving(chosen["listen"], replicas) as (exporter, url),
        _set_by(stop, signal.SIGINT, signal.SIGTERM),
    ):
        console().print(f"Metrics at {url}/metrics; Ctrl-C ends.")
        run = measure(primary, replicas, limits, stop=stop, observer=exporter)
    if not stop.is_set():
        click.echo(plain(f"Ended: {run.ended}."), err=True)
    return _not_removed(run) or int(not stop.is_set())


@contextmanager
def _set_by(stop: threading.Event, *signals: signal.Signals) -> Iterator[None]:
    before = {one: signal.signal(one, lambda *_: stop.set()) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _not_removed(run: Run) -> int:
    """Report what is still in the store, and return the exit status."""
    if run.not_removed:
        click.echo(plain(f"Not removed: {run.not_removed}. Run the same command with --remove."), err=True)
    return 1 if run.not_removed else 0


def _describe(nodes: Nodes, out: Console) -> int:
    missing: list[str] = []
    with _opened([nodes.primary, *nodes.replicas]) as opened:
        for node in opened:
            found = node.describe()
            missing += found.missing
            out.print(node.name, markup=False, style="bold")
            for statement in found.statements:
                out.print(f"  {statement}", markup=False)
            for grant in found.missing:
                out.print(f"  missing: {grant}", markup=False, style="red")
    return 1 if missing else 0


@contextmanager
def _opened(nodes: Sequence[Open]) -> Iterator[list[Target]]:
    with ExitStack() as stack:
        opened = [node() for node in nodes]
        for node in opened:
            stack.callback(node.close)
        try:
            yield opened
        except NotNow as error:
            raise LabError(str(error)) from error


def _limits(chosen: dict[str, Any]) -> Limits:
    given = ("rate", "seconds", "writes", "reads_per_second", "give_up")
    return Limits(*(chosen[name] for name in given))


def _nodes(chosen: dict[str, Any]) -> Nodes:
    """Raise ``LabError`` for an address with a password, and an unusable one."""
    system = chosen["system"]
    if system == "lab":
        from lab.probe import lab

        return Nodes(*lab.nodes(state.require(chosen["data_dir"])))
    primary, replicas = ("write", "reads") if system == "http" else ("primary", "replicas")
    return _addressed(system, chosen[primary], chosen[replicas], prompt=chosen["prompt"])


def _addressed(system: str, primary: str | None, replicas: tuple[str, ...], *, prompt: bool) -> Nodes:
    if primary is None:
        raise click.UsageError(f"Give {'--write' if system == 'http' else '--primary'}.")
    if any(map(_PASSWORD.search, (primary, *replicas))):
        raise LabError(
            "an address must not contain a password, which every user of this machine could read; give it in "
            "LAB_PROBE_PASSWORD, in PGPASSFILE or PGSERVICEFILE, or with --password at a prompt"
        )
    password = click.prompt("Password", hide_input=True, err=True) if prompt else os.environ.get("LAB_PROBE_PASSWORD")
    module = import_module(f"lab.probe.{system}")
    return Nodes(partial(module.node, primary, password), [partial(module.node, one, password) for one in replicas])


def _write_traces(run: Run, path: Path) -> None:
    """Write one file, or with several replicas one for each, numbered in their order."""
    several = len(run.replicas) > 1
    for number, replica in enumerate(run.replicas, 1):
        of = path.with_name(f"{path.stem}-{number}{path.suffix}") if several else path
        _write(of, trace(run, replica))
        click.echo(plain(f"{of}: {len(replica.brackets)} delays of {replica.name}"), err=True)


def _write(path: Path, text: str) -> None:
    if path == STANDARD_OUTPUT:
        click.echo(text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabError(f"{path} cannot be written: {error.strerror}") from None
