"""``lab torture``: draw a schedule, run it and check the outcome."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from lab.checking import history as histories
from lab.cli.options import Number, OutputFile, interrupt_on_sigterm, json_option, seed_option, timed_run
from lab.local.layout import NAMESPACE, REPLICAS_MAX
from lab.local.supervisor import Lab
from lab.terminal import console, print_json
from lab.torture import judge, report, run
from lab.torture.run import Order
from lab.torture.schedule import ALL_FAULTS, DEFAULT_FAULTS, LOG_FAULTS, draw
from lab.torture.target import ComposeTarget, NativeTarget, Target, native_processes


def _names(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if unknown := [name for name in names if name not in ALL_FAULTS]:
        raise click.BadParameter(f"unknown fault {unknown[0]!r}; choose from {', '.join(ALL_FAULTS)}")
    return names


@dataclass(frozen=True)
class _Chosen:
    seed: int
    seconds: float
    faults: tuple[str, ...]
    replicas: int
    compose: bool
    ha: bool

    def __post_init__(self) -> None:
        if self.ha and self.compose:
            raise click.UsageError("--ha and --compose exclude each other")
        if not self.ha and (named := set(self.faults) & set(LOG_FAULTS)):
            raise click.UsageError(f"{min(named)} needs --ha")

    @property
    def drawn(self) -> tuple[str, ...]:
        return self.faults or (*DEFAULT_FAULTS, *(LOG_FAULTS if self.ha else ()))

    def __str__(self) -> str:
        place = "--compose" if self.compose else f"--replicas {self.replicas}"
        place += " --ha" if self.ha else ""
        faults = f" --faults {','.join(self.faults)}" if self.faults else ""
        return f"lab torture --seed {self.seed} --seconds {self.seconds:g} {place}{faults}"


@click.command()
@seed_option("Random seed of the schedule.")
@click.option("--seconds", type=Number(5, 86_400), default=60.0, help="Duration in seconds.")
@click.option(
    "--faults",
    default="",
    show_default=False,
    callback=_names,
    help="Faults, separated by commas; all but corrupt by default.",
)
@click.option("--replicas", type=click.IntRange(1, REPLICAS_MAX), default=2, help="Number of replicas.")
@click.option("--compose", is_flag=True, help="Run against the stack in containers instead of a temporary lab.")
@click.option("--ha", is_flag=True, help="Run on three log servers and three Sentinels, and fail the log over.")
@click.option("--schedule", "only_schedule", is_flag=True, help="Print the schedule only.")
@click.option("--save", type=OutputFile(), help="Output file for the history, for `lab check --history`.")
@json_option(", with the schedule")
def torture(*, only_schedule: bool, save: Path | None, as_json: bool, **given: Any) -> None:
    """Run the chaos test: inject faults under load, then check the history.

    Sessions write and read at every level while processes are killed and hang, replicas have faults, and delays
    change. No write may be lost, duplicated, reordered or applied early; no node may go backwards, stall or diverge;
    every level keeps its promises. Exit status 1 otherwise. The same seed repeats the same schedule.

    With --ha the log server is also replaced and isolated. Then the log may lose acknowledged writes, but the lab has
    to name each of them.

    \b
    Example: lab torture --seed 14 --seconds 120
    """
    interrupt_on_sigterm()
    chosen = _Chosen(**given)
    out = console(quiet=as_json)
    processes = ComposeTarget().processes if chosen.compose else native_processes(chosen.replicas, ha=chosen.ha)
    names = [name for name in processes if name.startswith(f"{NAMESPACE}-replica")]
    acts = draw(chosen.seed, chosen.seconds, processes, names, chosen.drawn)
    if only_schedule:
        click.echo("\n".join(map(str, acts)))
        return
    order = Order(chosen.seed, chosen.seconds, acts)
    with _target(chosen, out) as (target, logs):
        with timed_run(out, order.seconds, f"seed {order.seed}") as (stop, show):

            def on_step(operations: int, done: int) -> None:
                show(f"{operations:,} operations, {done} of {len(acts)} acts")

            record = run.run(order, target, names, stop=stop, on_step=on_step)
        verdicts = judge.judge(record.history, record.ledger, record.floors, record.losses)
        levels = judge.by_level(record.plans, record.history)
        judged = report.Judged(order, record, verdicts, levels, str(chosen))
        if not judged.clean and logs is not None:
            kept = Path(tempfile.mkdtemp(prefix="lab-torture-kept-"))
            shutil.copytree(logs, kept, dirs_exist_ok=True)
            (kept / "schedule.txt").write_text("".join(f"{done}\n" for done in record.done), encoding="utf-8")
            out.print(f"The nodes' logs and the schedule are kept in {kept}.")
    if as_json:
        print_json(judged.as_json())
    out.print(report.picture(judged))
    if save is not None:
        histories.save(record.history, save)
    sys.exit(0 if judged.clean else 1)


@contextmanager
def _target(chosen: _Chosen, out: Console) -> Iterator[tuple[Target, Path | None]]:
    if chosen.compose:
        yield ComposeTarget(), None
        return
    with Lab.temporary(replicas=chosen.replicas, ha=chosen.ha, status=out.status) as lab:
        yield NativeTarget(lab), lab.data_dir / "logs"
