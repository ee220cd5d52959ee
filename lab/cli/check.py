"""``lab check``: run a workload or load a recorded history, and check it."""

import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from lab.checking import workload
from lab.checking.history import History, Plan, export, load
from lab.cli.options import Number, OutputFile, client_url_option, data_dir_option, json_option, timed_run
from lab.cli.verdicts import conclude, expect_option
from lab.client import call
from lab.errors import LabError, NothingTestedError
from lab.local import state
from lab.terminal import console
from nodes.http.level import LEVELS, QUORUM_MAX


@click.command()
@data_dir_option
@click.option("--level", type=click.Choice(LEVELS), default="session", help="Consistency level of reads.")
@click.option(
    "--max-lag-ms", type=Number(0, 86_400_000), help="Staleness bound for level bounded; also applied to --history."
)
@click.option("--max-lag-versions", type=click.IntRange(0), help="The same bound in versions.")
@click.option("--r", type=click.IntRange(1, QUORUM_MAX), help="Replicas that a read at level quorum asks.")
@click.option("--w", type=click.IntRange(1, QUORUM_MAX), help="Acknowledgements that its writes wait for.")
@click.option("--sessions", type=click.IntRange(1, 200), default=10, help="Concurrent sessions.")
@click.option("--seconds", type=Number(0.1, 86_400), default=10.0, help="Duration in seconds.")
@click.option("--keys", type=click.IntRange(1, 10_000), default=10, help="Number of keys.")
@click.option("--seed", type=int, default=0, help="Random seed of the sessions' operations.")
@expect_option
@client_url_option
@click.option("--history", "recorded", type=click.Path(path_type=Path), help="Recorded history to check instead.")
@click.option("--save", type=OutputFile(), help="Output file for the history, one JSON line per operation.")
@click.option("--export", type=OutputFile(), help="Output file for elle-cli (model rw-register).")
@json_option()
def check(data_dir: Path, recorded: Path | None, client_url: str | None, *, as_json: bool, **chosen: Any) -> None:
    """Run sessions through a consistency level, and check which guarantees held.

    Exit status 1 if a guarantee that the level promises, or that is expected, was violated, with the smallest
    counterexample; 2 if nothing was tested, or not what is expected.

    \b
    Example: lab check --level eventual --seconds 5
             lab check --level quorum --r 2 --w 1
    """
    save_to, export_to = chosen.pop("save"), chosen.pop("export")
    plan = Plan(**chosen)
    out = console(quiet=as_json)
    if recorded is not None:
        history = load(recorded)
        bounds: dict[str, Any] = {"max_lag_ms": plan.max_lag_ms, "max_lag_versions": plan.max_lag_versions}
        given = {name: value for name, value in bounds.items() if value is not None}
        expected = plan.expected or history.plan.expected
        history = History(replace(history.plan, expected=expected, **given), history.operations)
    else:
        history = _record(plan, client_url or state.url(data_dir, "client"), out)
    if export_to is not None:
        export(history, export_to)
    sys.exit(conclude(history, out, save_to, as_json=as_json))


def _record(plan: Plan, client_url: str, out: Console) -> History:
    if plan.level == "bounded" and plan.max_lag_ms is None and plan.max_lag_versions is None:
        raise LabError("level bounded requires --max-lag-ms or --max-lag-versions")
    if (None in {plan.r, plan.w}) if plan.level == "quorum" else (plan.r or plan.w):
        raise LabError("level quorum requires --r and --w; other levels accept neither")
    _, health = call("GET", f"{client_url}/health")
    if health.get("role") != "client":
        raise NothingTestedError(f"{client_url} is not the client service, but {str(health.get('role'))[:40]!r}")
    with timed_run(out, plan.seconds, f"{plan.sessions} sessions at level {plan.level}") as (stop, show):
        run = secrets.token_hex(4)
        return workload.run(plan, client_url, run, stop=stop, on_step=lambda done: show(f"{done:,} operations"))
