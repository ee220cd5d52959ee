"""``lab bench``: run the benchmark and show its figures."""

import itertools
import os
import platform
from dataclasses import replace
from typing import Any

import click
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lab.bench.figure import FULL, GROUPS, QUICK, Figure, measure_of
from lab.cli.options import interrupt_on_sigterm, json_option
from lab.terminal import console, print_json, table


@click.command()
@click.option("--quick", is_flag=True, help="Short smoke run; do not quote the numbers.")
@click.option("--only", type=click.Choice(GROUPS), multiple=True, help="Run only this group (repeatable).")
@click.option("--rounds", type=click.IntRange(1, 100), help="Rounds of each measurement.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), help="Length of one load in seconds.")
@json_option(", with every round")
def bench(*, quick: bool, only: tuple[str, ...], rounds: int | None, seconds: float | None, as_json: bool) -> None:
    """Measure the lab against minimal baselines, in the same run.

    \b
    Example: lab bench --only writes
              lab bench --only listeners --rounds 1 --seconds 180
    """
    scale = QUICK if quick else FULL
    scale = replace(scale, rounds=rounds or scale.rounds, seconds=seconds or scale.seconds)
    interrupt_on_sigterm()
    out = console(quiet=as_json)
    figures: list[Figure] = []
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=out) as progress:
        for group in only or GROUPS:
            bar = progress.add_task(group)

            def step(what: str, bar: TaskID = bar, group: str = group) -> None:
                progress.update(bar, description=f"{group}: {what}")

            figures += measure_of(group)(scale, step)
            progress.remove_task(bar)
    if as_json:
        machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
        print_json({"quick": quick, "machine": machine, "figures": [figure.as_json() for figure in figures]})
    out.print(picture(figures))


def picture(figures: list[Figure]) -> Table:
    shown = table("", "unit", "lab", "baseline", "ratio", "target", right={"lab", "baseline", "ratio"})
    for group, members in itertools.groupby(figures, key=lambda figure: figure.group):
        shown.add_row(f"[bold]{group}[/]")
        for one in members:
            found = one.as_json()
            verdict = "" if one.reached is None else "[green]✓[/] " if one.reached else "[red]✗[/] "
            target = f"{verdict}{one.target.bound} {one.target.value:g}" if one.target else ""
            against = f"{spread(found['baseline'])} {one.baseline_name}" if one.baseline else ""
            shown.add_row(f"  {one.name}", one.unit, spread(found["lab"]), against, spread(found["ratio"]), target)
    return shown


def spread(found: dict[str, Any] | None) -> str:
    """The median, and in parentheses the lowest and the highest round."""
    return "" if found is None else f"{_short(found['median'])} ({_short(found['min'])} to {_short(found['max'])})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
