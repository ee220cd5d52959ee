"""``lab torture``: draw a schedule, run it and judge it."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lab.checking import history as histories
from lab.cli.options import Number, OutputFile, interrupt_on_sigterm, json_option, stopped_by_ctrl_c
from lab.local.layout import NAMESPACE, REPLICAS_MAX
from lab.local.supervisor import Lab
from lab.terminal import console, print_json
from lab.torture import judge, report, run
from lab.torture.run import Order
from lab.torture.schedule import ALL_FAULTS, DEFAULT_FAULTS, draw
from lab.torture.target import ComposeTarget, NativeTarget, Target, native_processes

_BAR_WIDTH = 40


class FaultNames(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "names"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(name.strip() for name in str(value).split(",") if name.strip())
        unknown = [name for name in names if name not in ALL_FAULTS]
        if unknown:
            self.fail(f"unknown fault {unknown[0]!r}; choose from {', '.join(ALL_FAULTS)}", param, ctx)
        return names


@click.command()
@click.option("--seed", type=click.IntRange(0), help="Random seed of the schedule; random by default.")
@click.option("--seconds", type=Number(5, 86_400), default=60.0, help="Duration in seconds.")
@click.option(
    "--faults", type=FaultNames(), default="", help="Comma-separated faults to inject; all but corrupt by default."
)
@click.option("--replicas", type=click.IntRange(1, REPLICAS_MAX), default=2, help="Number of replicas.")
@click.option("--compose", is_flag=True, help="Torture the stack in containers instead of a temporary lab.")
@click.option("--schedule", "only_schedule", is_flag=True, help="Print the schedule only.")
@click.option("--save", type=OutputFile(), help="Output file for the history, for `lab check --history`.")
@json_option(", with the schedule")
def torture(
    *,
    seed: int | None,
    seconds: float,
    faults: tuple[str, ...],
    replicas: int,
    compose: bool,
    save: Path | None,
    only_schedule: bool,
    as_json: bool,
) -> None:
    """Run the chaos test: inject faults under load, then check the history.

    Sessions write and read at every level while processes are killed and hang, replicas have faults, and delays
    change. No write may be lost, duplicated, reordered or applied early; no node may go backwards or diverge; every
    level keeps its promises. Exit status 1 otherwise. The same seed repeats the same schedule.

    \b
    Example: lab torture --seed 14 --seconds 120
    """
    interrupt_on_sigterm()
    seed = secrets.randbelow(10**6) if seed is None else seed
    out = console(quiet=as_json)
    processes = ComposeTarget().processes if compose else native_processes(replicas)
    names = [name for name in processes if name.startswith(f"{NAMESPACE}-replica")]
    order = Order(seed, seconds, draw(seed, seconds, processes, names, faults or DEFAULT_FAULTS))
    if only_schedule:
        click.echo("\n".join(map(str, order.acts)))
        return
    with _target(out, replicas, compose=compose) as (target, logs):
        record = _run(order, target, names, out)
        verdicts = judge.judge(record.history, record.ledger, record.floors)
        levels = judge.by_level(record.plans, record.history)
        again = _again(order, faults, replicas, compose=compose)
        judged = report.Judged(order, record, verdicts, levels, again)
        if not judged.clean and logs is not None:
            kept = Path(tempfile.mkdtemp(prefix="lab-torture-kept-"))
            shutil.copytree(logs, kept, dirs_exist_ok=True)
            (kept / "schedule.txt").write_text(report.schedule(judged) + "\n", encoding="utf-8")
            out.print(f"The nodes' logs and the schedule are kept in {kept}.")
    if as_json:
        print_json(judged.as_json())
    out.print(report.picture(judged))
    if save is not None:
        histories.save(record.history, save)
    sys.exit(0 if judged.clean else 1)


@contextmanager
def _target(out: Console, replicas: int, *, compose: bool) -> Iterator[tuple[Target, Path | None]]:
    """The stack in containers, or a temporary lab and the directory of its logs."""
    if compose:
        yield ComposeTarget(), None
        return
    with Lab.temporary(replicas=replicas, status=out.status) as lab:
        yield NativeTarget(lab), lab.data_dir / "logs"


def _run(order: Order, target: Target, replicas: list[str], out: Console) -> run.Record:
    columns = (
        TextColumn("seed {task.fields[seed]}"),
        BarColumn(_BAR_WIDTH),
        TextColumn("{task.fields[operations]:,} operations, {task.fields[acts]} of {task.fields[planned]} acts"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=out, transient=True) as progress, stopped_by_ctrl_c() as stop:
        bar = progress.add_task("", total=order.seconds, seed=order.seed, operations=0, acts=0, planned=len(order.acts))
        began = time.monotonic()

        def on_step(operations: int, acts: int) -> None:
            progress.update(
                bar, completed=min(order.seconds, time.monotonic() - began), operations=operations, acts=acts
            )

        return run.run(order, target, replicas, stop=stop, on_step=on_step)


def _again(order: Order, faults: tuple[str, ...], replicas: int, *, compose: bool) -> str:
    given = f"lab torture --seed {order.seed} --seconds {order.seconds:g}"
    given += " --compose" if compose else f" --replicas {replicas}"
    return given + (f" --faults {','.join(faults)}" if faults else "")
