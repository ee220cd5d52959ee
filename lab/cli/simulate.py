"""``lab simulate``: run the lab on a virtual clock, with every choice drawn from a seed."""

import multiprocessing
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lab.cli.options import Number, OutputFile, interrupt_on_sigterm, json_option, seed_option
from lab.errors import LabError
from lab.terminal import console, print_json

if TYPE_CHECKING:
    from lab.simulation.branches import Branch
    from lab.simulation.report import Summary
    from lab.simulation.run import Failure, Outcome

_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)
_SEEDS_MAX = 100_000
_MINUTES = 5.0
_INSTALL = "`pip install 'eventual-consistency-lab[simulation]'` or, in a checkout, `make up`"
_NEEDED = {"fakeredis": "fakeredis", "greenlet": "greenlet", "lupa": "fakeredis[lua]"}


def _range(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Sequence[int] | None:
    """Read ``14`` or ``1-1000``."""
    if value is None:
        return None
    match = _RANGE.fullmatch(value)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last < first + _SEEDS_MAX:
        raise click.BadParameter(
            f"{value[:40]!r} is neither a seed nor a range of at most {_SEEDS_MAX:,}, such as 1-1000"
        )
    return range(first, last + 1)


@click.command()
@seed_option("Random seed of the run.")
@click.option("--seeds", callback=_range, show_default=False, help="Range of seeds, such as 1-1000: a run with each.")
@click.option("--hours", type=Number(0.01, 1000), show_default=False, help="Lab time of each run in hours.")
@click.option(
    "--minutes", type=Number(1, 60_000), show_default=False, help="Lab time of each run in minutes.  [default: 5]"
)
@click.option("--jobs", type=click.IntRange(1, 256), default=1, help="Number of runs at a time, each on a core.")
@click.option("--first", is_flag=True, help="Stop at the first failure.")
@click.option("--shorten/--no-shorten", default=True, help="Look for the fewest faults that still fail.")
@click.option("--branches", is_flag=True, help="Count the branches of the nodes that recover from something; slower.")
@click.option("--svg", "svg_to", type=OutputFile(), help="Output file for the space-time diagram of the first failure.")
@json_option()
def simulate(*, seed: int, seeds: Sequence[int] | None, svg_to: Path | None, as_json: bool, **given: Any) -> None:
    """Run the lab in virtual time, disturb it, and check every step.

    Primary, replicas, the log's scripts and the stores are the real code, in one thread and on a virtual clock: an hour
    takes about a minute. Every fault and every choice is drawn from the seed, so the same seed has the same output.
    docs/simulation.md says what is simulated, what is checked, and what this cannot find.

    A failure is shortened to the fewest faults with which it still happens. Exit status 1 if any run failed.

    \b
    Example: lab simulate --seed 14 --hours 24
             lab simulate --seeds 1-1000 --minutes 5 --jobs 2
    """
    if missing := sorted({name for module, name in _NEEDED.items() if find_spec(module) is None}):
        raise LabError(f"the simulation needs {' and '.join(missing)}. Run {_INSTALL}")
    interrupt_on_sigterm()
    from lab.simulation import report

    chosen = _Chosen(**given)
    out = console(quiet=as_json)
    try:
        found, failed = _run([seed] if seeds is None else seeds, chosen)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None  # not 1, which would be a failure
    if as_json:
        shortened = None if failed is None else report.failure_json(failed)
        print_json({**found.as_json(), "shortened": shortened})
    out.print(report.summary(found))
    if found.taken is not None:
        out.print(report.branches(found.taken))
    if failed is None:
        out.print(f"Nothing was violated{'' if seeds is not None else f' with seed {seed}'}.", style="green")
        return
    seeds_failed = ", ".join(str(failure.seed) for failure in found.failures[:20])
    out.print(f"Failed: {seeds_failed}{' and more' if len(found.failures) > 20 else ''}", style="bold red")
    out.print(report.failure(failed, out.width))
    if svg_to is not None:
        _save(svg_to, report.picture(failed))
    sys.exit(1)


@dataclass(frozen=True)
class _Chosen:
    hours: float | None
    minutes: float | None
    jobs: int
    first: bool
    shorten: bool
    branches: bool

    def __post_init__(self) -> None:
        if self.hours is not None and self.minutes is not None:
            raise click.UsageError("--hours and --minutes exclude each other")

    @property
    def seconds(self) -> float:
        return (self.hours * 60 if self.hours is not None else self.minutes or _MINUTES) * 60


def _run(seeds: Sequence[int], chosen: _Chosen) -> "tuple[Summary, Failure | None]":
    """Run the seeds; return the summary, and the first failure, by default in its shortest form."""
    from lab.simulation import report
    from lab.simulation.shrink import shrink

    found, seconds = report.Summary(), chosen.seconds
    with _progress(seconds * len(seeds)) as show:
        with closing(_outcomes(seeds, chosen, show)) as outcomes:
            for outcome, taken in outcomes:
                found.add(outcome, taken)
                show(found.runs * seconds, f"{found.runs:,} of {len(seeds):,} runs" if len(seeds) > 1 else "")
                if found.failures and chosen.first:
                    break
        failed = min(found.failures, key=lambda failure: failure.seed, default=None)
        if failed is not None and chosen.shorten:
            failed = shrink(failed, lambda trial: show(found.runs * seconds, f"shortening, run {trial}"))
    return found, failed


def _outcomes(
    seeds: Sequence[int], chosen: _Chosen, show: Callable[[float, str], None]
) -> "Generator[tuple[Outcome, Counter[Branch] | None], None, None]":
    one, seconds = partial(_outcome, seconds=chosen.seconds, branches=chosen.branches), chosen.seconds
    if chosen.jobs == 1 or len(seeds) == 1:
        for number, seed in enumerate(seeds):
            yield one(seed, on_progress=partial(_show_after, show, number * seconds))
        return
    with tempfile.TemporaryDirectory(prefix="lab-simulations-") as directory:
        options: Any = {"mp_context": multiprocessing.get_context("spawn"), "initargs": (directory,)}
        with ProcessPoolExecutor(min(chosen.jobs, len(seeds)), initializer=_begin_job, **options) as jobs:
            try:
                yield from jobs.map(one, seeds)
            except BrokenProcessPool:
                raise LabError(
                    "one of the jobs was killed, perhaps because memory was short. Run fewer with --jobs"
                ) from None
            finally:
                for job in multiprocessing.active_children():
                    job.terminate()


def _outcome(
    seed: int, seconds: float, *, branches: bool, on_progress: Callable[[float], object] = lambda _: None
) -> "tuple[Outcome, Counter[Branch] | None]":
    from lab.simulation.branches import recording
    from lab.simulation.run import simulate as simulated

    counting: AbstractContextManager[Counter[Branch] | None] = recording() if branches else nullcontext()
    with counting as taken:
        return simulated(seed, seconds, on_progress=on_progress), taken


def _show_after(show: Callable[[float, str], None], before: float, done: float) -> None:
    show(before + done, "")


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabError(f"{path} cannot be written: {error.strerror}") from None


def _begin_job(directory: str) -> None:
    """Leave Ctrl-C to the command, which then ends this process at once, and removes the directory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tempfile.tempdir = directory


@contextmanager
def _progress(seconds: float) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on standard error: standard output is the same for the same seed."""
    columns = (TextColumn("{task.description}"), BarColumn(40), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("", total=seconds)

        def show(done: float, words: str) -> None:
            progress.update(bar, completed=done, description=words or None, refresh=True)

        yield show
