"""``lab bench``: run the benchmark and show its figures."""

import os
import platform
from typing import Any

import click
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lab.bench.figure import Figure
from lab.bench.groups import GROUPS, measure_of
from lab.bench.scale import FULL, QUICK
from lab.cli.options import interrupt_on_sigterm, json_option
from lab.terminal import console, print_json
from lab.terminal import table as empty_table


@click.command()
@click.option("--quick", is_flag=True, help="Short smoke run; do not quote the numbers.")
@click.option("--only", type=click.Choice(GROUPS), multiple=True, help="Run only this group (repeatable).")
@json_option(", with every round")
def bench(*, quick: bool, only: tuple[str, ...], as_json: bool) -> None:
    """Measure the lab against minimal baselines, in the same run.

    \b
    Example: lab bench --only writes
    """
    interrupt_on_sigterm()
    out = console(quiet=as_json)
    figures: list[Figure] = []
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=out) as progress:
        for group in only or GROUPS:
            bar = progress.add_task(group)

            def step(what: str, bar: TaskID = bar, group: str = group) -> None:
                progress.update(bar, description=f"{group}: {what}")

            figures += measure_of(group)(QUICK if quick else FULL, step)
            progress.remove_task(bar)
    if as_json:
        print_json({"quick": quick, "machine": machine(), "figures": [figure.as_json() for figure in figures]})
    out.print(table(figures))


def machine() -> dict[str, object]:
    return {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def table(figures: list[Figure]) -> Table:
    shown = empty_table("", "unit", "lab", "baseline", "ratio", "target", right={"lab", "baseline", "ratio"})
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            shown.add_row(f"[bold]{group}[/]")
        found = figure.as_json()
        verdict = "" if figure.reached is None else "[green]✓[/] " if figure.reached else "[red]✗[/] "
        target = f"{verdict}{figure.target.bound} {figure.target.value:g}" if figure.target else ""
        against = f"{spread(found['baseline'])} {figure.baseline_name}" if figure.baseline else ""
        shown.add_row(f"  {figure.name}", figure.unit, spread(found["lab"]), against, spread(found["ratio"]), target)
    return shown


def spread(found: dict[str, Any] | None) -> str:
    """The median, and in brackets the lowest and the highest round."""
    return "" if found is None else f"{_short(found['median'])} ({_short(found['min'])} to {_short(found['max'])})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
