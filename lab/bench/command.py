"""``lab bench``: measure, show, say."""

from __future__ import annotations

import json
import os
import platform

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lab.bench.figure import FULL, GROUPS, QUICK, Figure, measure_of
from lab.terminal import console


def bench(*, quick: bool, only: tuple[str, ...], as_json: bool) -> None:
    """Measure the groups asked for. Raises ``LabError``."""
    out = Console(quiet=True) if as_json else console()
    figures: list[Figure] = []
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=out) as progress:
        for group in only or GROUPS:
            bar = progress.add_task(group)

            def step(what: str, bar: TaskID = bar, group: str = group) -> None:
                progress.update(bar, description=f"{group}: {what}")

            figures += measure_of(group)(QUICK if quick else FULL, step)
            progress.remove_task(bar)
    if as_json:
        found = {"quick": quick, "machine": machine(), "figures": [figure.as_json() for figure in figures]}
        click.echo(json.dumps(found, indent=2))
    out.print(table(figures))


def machine() -> dict[str, object]:
    """What it was measured on."""
    return {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def table(figures: list[Figure]) -> Table:
    """The medians, and in brackets the lowest and the highest round."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "unit", "lab", "baseline", "ratio", "target"):
        shown.add_column(name, justify="right" if name in {"lab", "baseline", "ratio"} else "left")
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            shown.add_row(f"[bold]{group}[/]")
        found = figure.as_json()
        verdict = "" if figure.reached is None else "[green]✓[/] " if figure.reached else "[red]✗[/] "
        target = f"{verdict}{figure.target.bound} {figure.target.value:g}" if figure.target else ""
        against = f"{_spread(found['baseline'])} {figure.baseline_name}" if figure.baseline else ""
        shown.add_row(f"  {figure.name}", figure.unit, _spread(found["lab"]), against, _spread(found["ratio"]), target)
    return shown


def _spread(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{short(found['median'])} [dim]({short(found['min'])} to {short(found['max'])})[/]"


def short(value: float) -> str:
    """A number with three digits, or without decimals where it is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
