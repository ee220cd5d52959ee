"""``lab torture``: draw a schedule, run it, judge it, say so."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lab.checking import history as histories
from lab.checking.command import stopped_by_ctrl_c
from lab.local import layout
from lab.local.layout import NAMESPACE, Options
from lab.local.supervisor import Lab
from lab.terminal import console
from lab.torture import judge, report, run
from lab.torture.run import Order
from lab.torture.schedule import ALL_FAULTS, DEFAULT_FAULTS, draw
from lab.torture.target import ComposeTarget, NativeTarget, Target, native_processes

_BAR_WIDTH = 40


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
) -> int:
    """Do what the options say; the exit status. Raises ``LabError``."""
    seed = secrets.randbelow(10**6) if seed is None else seed
    out = Console(quiet=True) if as_json else console()
    processes = ComposeTarget().processes if compose else native_processes(replicas)
    names = [name for name in processes if name.startswith(f"{NAMESPACE}-replica")]
    order = Order(seed, seconds, draw(seed, seconds, processes, names, faults or DEFAULT_FAULTS))
    if only_schedule:
        click.echo("\n".join(map(str, order.acts)))
        return 0
    with _target(out, replicas, compose=compose) as (target, directory):
        record = _run(order, target, names, out)
        verdicts = judge.judge(record.history, record.ledger, record.floors)
        levels = judge.by_level(record.plans, record.history)
        again = _again(order, faults, replicas, compose=compose)
        judged = report.Judged(order, record, verdicts, levels, again)
        if not judged.clean and directory is not None:
            kept = Path(tempfile.mkdtemp(prefix="lab-torture-kept-"))
            shutil.copytree(directory / "logs", kept, dirs_exist_ok=True)
            (kept / "schedule.txt").write_text(report.schedule(judged) + "\n", encoding="utf-8")
            out.print(f"What the nodes said, and the schedule, are kept in {kept}.")
    if as_json:
        click.echo(json.dumps(judged.as_json(), indent=2))
    out.print(report.picture(judged))
    if save is not None:
        histories.save(record.history, save)
    return 0 if judged.clean else 1


@contextmanager
def _target(out: Console, replicas: int, *, compose: bool) -> Iterator[tuple[Target, Path | None]]:
    """The stack in containers, or a lab of its own, which is stopped in the end."""
    if compose:
        yield ComposeTarget(), None
        return
    with tempfile.TemporaryDirectory(prefix="lab-torture-") as name:
        directory = Path(name)
        base_port = layout.free_base_port(SystemRandom())
        lab = Lab(Options(data_dir=directory, base_port=base_port, replicas=replicas))
        try:
            with out.status("Starting a lab"):
                lab.start()
            yield NativeTarget(lab), directory
        finally:
            with out.status("Stopping the lab"):
                lab.stop()


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


class FaultNames(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "names"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """See click."""
        names = tuple(name.strip() for name in str(value).split(",") if name.strip())
        unknown = [name for name in names if name not in ALL_FAULTS]
        if unknown:
            self.fail(f"unknown fault {unknown[0]!r}; choose from {', '.join(ALL_FAULTS)}", param, ctx)
        return names
