"""``lab check``: run a workload or take a recorded history, judge it, say so."""

from __future__ import annotations

import json
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lab.checking import elle, promises, report, workload
from lab.checking.history import History, Plan, load, save
from lab.client import NodeUnreachable, call
from lab.errors import LabError, NothingTestedError
from lab.local import state
from lab.terminal import console

_BAR_WIDTH = 40


def run(data_dir: Path, *, as_json: bool, recorded: Path | None, client_url: str | None, **chosen: Any) -> int:
    """Do what the options say; the exit status. Raises ``LabError``."""
    save_to, export_to = chosen.pop("save"), chosen.pop("export")
    plan = Plan(**chosen)
    out = Console(quiet=True) if as_json else console()
    if recorded is not None:
        history = _with_bounds(load(recorded), plan)
    else:
        history = _record(plan, client_url or state.client_url(data_dir), out)
    verdicts = promises.judge(history)
    if as_json:
        click.echo(json.dumps(report.as_json(history, verdicts), indent=2))
    out.print(report.picture(history, verdicts))
    if save_to is not None:
        save(history, save_to)
    if export_to is not None:
        elle.export(history, export_to)
    if all(found.judgement == "not tested" for found in verdicts):
        raise NothingTestedError("no operation succeeded that a guarantee could be tested on")
    return 1 if promises.broken(history.plan.level, verdicts, history.plan.order) else 0


def _with_bounds(history: History, plan: Plan) -> History:
    """The recorded history, held to the bounds given now, where any are."""
    given = {name: value for name in ("max_lag_ms", "max_lag_versions") if (value := getattr(plan, name)) is not None}
    return History(replace(history.plan, **given), history.operations)


def _record(plan: Plan, client_url: str, out: Console) -> History:
    bounded = plan.max_lag_ms is not None or plan.max_lag_versions is not None
    if plan.level == "bounded" and not bounded:
        raise LabError("level bounded needs --max-lag-ms or --max-lag-versions")
    try:
        _, health = call("GET", f"{client_url}/health")
    except NodeUnreachable as error:
        raise LabError(f"{error}; `lab status` shows a lab, `lab up` starts one") from None
    if health.get("role") != "client":
        raise NothingTestedError(f"{client_url} is not the client service, but {str(health.get('role'))[:40]!r}")
    columns = (TextColumn("{task.description}"), BarColumn(_BAR_WIDTH), TextColumn("{task.fields[done]:,} operations"))
    with Progress(*columns, TimeElapsedColumn(), console=out, transient=True) as progress, stopped_by_ctrl_c() as stop:
        bar = progress.add_task(f"{plan.sessions} sessions at level {plan.level}", total=plan.seconds, done=0)
        began = time.monotonic()

        def on_step(done: int) -> None:
            progress.update(bar, completed=min(plan.seconds, time.monotonic() - began), done=done)

        return workload.run(plan, client_url, secrets.token_hex(4), stop=stop, on_step=on_step)


@contextmanager
def stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets: what has been recorded by then is judged all the same."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
