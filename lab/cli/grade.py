"""``lab grade``: grade a program that consumes the log."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from broker.errors import LogError
from lab.checking import history as histories
from lab.cli.options import OutputFile, interrupt_on_sigterm, json_option, seed_option
from lab.errors import LabError, NothingTestedError
from lab.grade import report, run, table
from lab.grade.levels import LEVELS, Level
from lab.grade.report import Outcome, Result
from lab.terminal import console, print_json

_MISBEHAVED = 2
_RANGE = re.compile(r"(\d)(?:-(\d))?", re.ASCII)


def _levels(_ctx: click.Context, _param: click.Parameter, value: str) -> Sequence[Level]:
    """Read ``3`` or ``1-3``."""
    match = _RANGE.fullmatch(value)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= len(LEVELS):
        raise click.BadParameter(f"{value[:40]!r} is neither a level from 1 to {len(LEVELS)} nor a range such as 1-3")
    return LEVELS[first - 1 : last]


@click.command()
@click.argument("command", nargs=-1)
@click.option("--level", "levels", default=f"1-{len(LEVELS)}", callback=_levels, help="Level, or range of levels.")
@click.option("--all", "every", is_flag=True, help="Go on after a failed level.")
@seed_option("Random seed of the load and of what is done to the program.")
@click.option("--out", "out_to", type=OutputFile(), help="Output file for the result, for --table.")
@click.option("--save", "save_to", type=OutputFile(), help="Output file for the history, for `lab check --history`.")
@click.option("--log", "log_to", type=OutputFile(), help="Output file for what the program prints.")
@click.option("--svg", "svg_to", type=OutputFile(), help="Output file for the diagram of the failed level.")
@click.option("--table", "as_table", is_flag=True, help="Print the results in the files COMMAND as a table instead.")
@json_option()
def grade(*, command: tuple[str, ...], as_table: bool, as_json: bool, **chosen: Any) -> None:
    """Grade a program that consumes the log, on a lab of its own.

    The program reads the log as a replica does, and serves what it has applied; docs/bring-your-own.md says how. It is
    killed, cut off and delayed under load, and everything that it shows is compared with the log. It ends at the first
    failed level, with the smallest counterexample. Exit status 1 if a level failed; 2 if the program cannot be graded.

    \b
    Example: lab grade -- python examples/replicas/first_try.py
             lab grade --level 1-3 --seed 14 --out result.json -- ./my-replica --verbose
             lab grade --table anna.json ben.json
    """
    out = console(quiet=as_json)
    if not command:
        raise click.UsageError("Give files after --table." if as_table else "Give the program's command after --.")
    if as_table:
        console().print(table.of_class([Path(name) for name in command]))
        return
    interrupt_on_sigterm()
    result, misbehaved = _graded(command, chosen, out)
    _write(result, chosen, out)
    if as_json:
        print_json(result.as_json())
    if misbehaved is not None:
        raise misbehaved
    for outcome in result.outcomes:
        if outcome.passed is False:
            out.print(report.explanation(outcome, result.seed, out.width))
    sys.exit(int(result.failed is not None))


def _graded(command: tuple[str, ...], chosen: dict[str, Any], out: Console) -> tuple[Result, LabError | None]:
    """Return the result, and how the program misbehaved if it did: that fails the level, and ends the grading."""
    levels: Sequence[Level] = chosen["levels"]
    result = Result(command, chosen["seed"], [])
    try:
        with _progress(out, levels) as (status, step), run.surroundings(status) as around, ExitStack() as stack:
            out.print(f"Watch it in the console: {around.lab.client_url}", style="dim")
            stack.callback(_keep, around.log_file, chosen["log_to"])
            for level in levels:
                step(level)
                records = run.play(around, command, level, result.seed)
                result.outcomes.append(report.weigh(level, records))
                out.print(report.line(result.outcomes[-1]))
                if result.failed is not None and not chosen["every"]:
                    break
    except LabError as error:
        if error.exit_code != _MISBEHAVED:  # it is not about the program
            raise NothingTestedError(f"{error}{error.advice}") from None
        result.outcomes.append(Outcome(levels[len(result.outcomes)], passed=False, words=str(error)))
        return result, error
    except LogError as error:
        raise NothingTestedError(f"the lab's log server failed: {error}") from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None  # not 1, which would be a failed level
    return result, None


@contextmanager
def _progress(
    out: Console, levels: Sequence[Level]
) -> Iterator[tuple[Callable[[str], AbstractContextManager[None]], Callable[[Level], None]]]:
    """A progress bar; the first function shows what is done meanwhile, the second the level that begins."""
    columns = (TextColumn("{task.description}"), BarColumn(40), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        bar = progress.add_task("", total=len(levels))

        @contextmanager
        def status(words: str) -> Iterator[None]:
            progress.update(bar, description=words)
            yield

        def step(level: Level) -> None:
            about = f"level {level.number}: {level.name}"
            progress.update(bar, description=about, completed=levels.index(level))

        yield status, step


def _write(result: Result, chosen: dict[str, Any], out: Console) -> None:
    if (out_to := chosen["out_to"]) is not None:
        _save(out_to, json.dumps(result.as_json(), indent=2) + "\n")
    if (save_to := chosen["save_to"]) is not None and result.history is not None:
        histories.save(result.history, save_to)
    if (svg_to := chosen["svg_to"]) is not None:
        if result.failed is not None and result.failed.events:
            _save(svg_to, report.picture(result.failed))
        else:
            out.print(f"There is nothing to draw: {svg_to} was not written.", markup=False)


def _keep(log: Path, log_to: Path | None) -> None:
    """Copy what the program printed, which is removed with the lab."""
    if log_to is not None:
        _save(log_to, log.read_text(encoding="utf-8", errors="replace") if log.exists() else "")


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise NothingTestedError(f"{path} cannot be written: {error.strerror}") from None
