"""``lab probe``: measure the staleness of a replicated store."""

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from lab.checking.history import Plan
from lab.cli.nodes import SYSTEMS, Nodes, nodes_of, opened
from lab.cli.options import Number, OutputFile, data_dir_option, json_option, timed_run
from lab.cli.verdicts import conclude, expect_option
from lab.errors import LabError
from lab.probe.figures import calibrate, figures, trace
from lab.probe.instrument import Limits, Run
from lab.probe.instrument import run as measure
from lab.probe.sessions import ROUTES, WRITE_SHARE, Observed
from lab.probe.sessions import run as observe
from lab.probe.table import picture
from lab.terminal import console, plain, print_json

STANDARD_OUTPUT = Path("-")
_FINISHING_SECONDS = 1.0  # of the progress bar, for the last writes to become visible
_WRITES_PER_SECOND_MAX = 100.0
_RATES = {False: 10.0, True: 1.0}  # writes per second, by whether the run is endless
_OF_AN_END = ("seconds", "writes", "sessions", "as_json", "trace_to", "report_to")
_SESSIONS_MAX = 20  # each has a connection to every node


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
@click.option("--sessions", type=click.IntRange(1, _SESSIONS_MAX), help="Check what as many sessions see instead.")
@click.option("--route", type=click.Choice(ROUTES), help="Nodes that sessions read.  [default: round-robin]")
@click.option("--history", "history_to", type=OutputFile(), help="Output file for what they saw, for `lab check`.")
@expect_option
@data_dir_option
@json_option(", with the bracket of every write")
def probe(*, dry_run: bool, remove: bool, **chosen: Any) -> None:
    """Measure how stale the reads of a store's replicas are.

    One writer raises a number, and one reader per replica looks for it. A write becomes visible, for certain, between
    the sending of the last stale read and the receipt of the first fresh one. What the probe creates is removed at the
    end. Exit status 1 if the run ended early.

    With --sessions it is checked which guarantees users have that write to the primary, and read from all nodes in turn
    (--route round-robin), from one node each (sticky), or from all replicas in turn (primary-writes). Exit status 1
    also if an expected guarantee was violated; 2 if it was not tested.

    \b
    Example: lab probe lab --seconds 20
             lab probe postgresql --primary service=p --replica service=r1 --dry-run
             lab probe redis --primary redis://a --replica redis://b --sessions 3 --expect read_your_writes
             lab probe lab --listen 127.0.0.1:9109
    """
    _require_consistent(chosen)
    nodes = nodes_of(chosen)
    if dry_run:
        sys.exit(_describe(nodes, console()))
    if remove:
        with opened([nodes.primary]) as (primary,):
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
    out = console(quiet=as_json or report_to == STANDARD_OUTPUT)
    if report_to is not None:
        from lab.probe.report import page, sessions_page  # requires matplotlib, which is optional
    if chosen["sessions"] is not None:
        found_by_sessions = _observed(nodes, chosen, out)
        if report_to is not None:
            _write(report_to, sessions_page(found_by_sessions.history))
        return _conclude(found_by_sessions, chosen, out, as_json=as_json)
    run = _measured(nodes, _limits(chosen), out)
    if trace_to is not None:
        _write_traces(run, trace_to)
    found = figures(run)
    if chosen["system"] == "lab":
        from lab.probe.lab import configured

        calibrate(found, [configured(replica, chosen["rate"]) for replica in run.replicas])
    if report_to is not None:
        _write(report_to, page(found))
    if as_json:
        print_json(found)
    out.print(picture(found))
    _warn_of(run.not_removed)
    return 1 if run.ended or run.not_removed else 0


def _measured(nodes: Nodes, limits: Limits, out: Console) -> Run:
    seconds = limits.writes / limits.writes_per_second + _FINISHING_SECONDS
    with (
        opened([nodes.primary, *nodes.replicas]) as (primary, *replicas),
        _stoppable(out, seconds, f"{limits.writes} writes") as (stop, show),
    ):
        return measure(primary, replicas, limits, stop=stop, on_step=lambda done: show(f"{done:,} writes"))


def _export(nodes: Nodes, chosen: dict[str, Any]) -> int:
    from lab.probe.exporter import serving

    stop = threading.Event()
    limits = _limits({**chosen, "seconds": math.inf, "writes": sys.maxsize})
    with (
        opened([nodes.primary, *nodes.replicas]) as (primary, *replicas),
        serving(chosen["listen"], replicas) as (exporter, url),
        _set_by(stop, signal.SIGINT, signal.SIGTERM),
    ):
        console().print(f"Metrics at {url}/metrics; Ctrl-C ends.")
        run = measure(primary, replicas, limits, stop=stop, observer=exporter)
    if not stop.is_set():
        click.echo(plain(f"Ended: {run.ended}."), err=True)
    _warn_of(run.not_removed)
    return 1 if run.not_removed or not stop.is_set() else 0


@contextmanager
def _set_by(stop: threading.Event, *signals: signal.Signals) -> Iterator[None]:
    before = {one: signal.signal(one, lambda *_: stop.set()) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _require_consistent(chosen: dict[str, Any]) -> None:
    given = [name for name in ("route", "history_to", "expected") if chosen[name]]
    if chosen["sessions"] is None and given:
        raise click.UsageError("--route, --history and --expect require --sessions.")
    if chosen["sessions"] is not None and chosen["trace_to"]:
        raise click.UsageError("--trace is of a measurement, which --sessions replaces.")
    if chosen["sessions"] is not None and chosen["system"] == "http":
        raise click.UsageError("--sessions require a primary that they can read, and http only writes to it.")
    if chosen["as_json"] and chosen["report_to"] == STANDARD_OUTPUT:
        raise click.UsageError("Only one of --json and --report can go to standard output.")
    context = click.get_current_context()
    for option in context.command.params:
        is_given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if chosen["listen"] is not None and is_given and option.name in _OF_AN_END:
            raise click.UsageError(f"{option.opts[0]} is for a run with an end, and --listen has none.")


def _observed(nodes: Nodes, chosen: dict[str, Any], out: Console) -> Observed:
    limits, count = _limits(chosen), chosen["sessions"]
    plan = Plan(
        "observed",
        sessions=count,
        seconds=limits.seconds,
        keys=count,
        write_share=WRITE_SHARE,
        positions=False,
        expected=chosen["expected"],
    )
    route, every = chosen["route"] or ROUTES[0], [nodes.primary, *nodes.replicas]
    with _stoppable(out, limits.seconds + _FINISHING_SECONDS, f"{count} sessions") as (stop, show):
        return observe(every, plan, route, limits, stop=stop, on_step=lambda done: show(f"{done:,} operations"))


def _conclude(found: Observed, chosen: dict[str, Any], out: Console, *, as_json: bool) -> int:
    if found.ended:
        click.echo(plain(f"Ended early: {found.ended}."), err=True)
    _warn_of(found.not_removed)
    status = conclude(found.history, out, chosen["history_to"], as_json=as_json)
    return max(status, 1 if found.ended or found.not_removed else 0)


def _warn_of(not_removed: str) -> None:
    if not_removed:
        click.echo(plain(f"Not removed: {not_removed}. Run the same command with --remove."), err=True)


@contextmanager
def _stoppable(
    out: Console, seconds: float, description: str
) -> Iterator[tuple[threading.Event, Callable[[str], None]]]:
    """Ctrl-C and SIGTERM only end the run, from before anything is created until it is removed."""
    with timed_run(out, seconds, description) as (stop, show), _set_by(stop, signal.SIGTERM):
        yield stop, show


def _describe(nodes: Nodes, out: Console) -> int:
    missing: list[str] = []
    with opened([nodes.primary, *nodes.replicas]) as found_nodes:
        for node in found_nodes:
            found = node.describe()
            missing += found.missing
            out.print(node.name, markup=False, style="bold")
            for statement in found.statements:
                out.print(f"  {statement}", markup=False)
            for grant in found.missing:
                out.print(f"  missing: {grant}", markup=False, style="red")
    return 1 if missing else 0


def _limits(chosen: dict[str, Any]) -> Limits:
    given = ("rate", "seconds", "writes", "reads_per_second", "give_up")
    return Limits(*(chosen[name] for name in given))


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
