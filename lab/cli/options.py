"""Options and parameter types shared by several commands."""

import functools
import math
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lab import files
from lab.errors import LabError
from lab.local import state
from lab.terminal import plain
from nodes.http import strict_json

if TYPE_CHECKING:
    from broker.delay.models import DelayModel

Command = Callable[..., Any]
SHOWN_MAX = 100  # characters of a value that an error quotes


class Number(click.FloatRange):
    """A number in a range; "nan" is rejected."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number", param, ctx)
        return found


class OutputFile(click.Path):
    """A file to write; rejected before any work is done if it cannot be written."""

    def __init__(self, *, allow_dash: bool = False) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True, allow_dash=allow_dash)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Path = super().convert(value, param, ctx)  # type: ignore[assignment]
        if not path.exists() and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            self.fail(f"{str(path)!r} cannot be written: {str(path.parent)!r} is not a writable directory", param, ctx)
        return path


class ModelType(click.ParamType[Any]):
    """A delay model on the command line: milliseconds, JSON, or a CSV file of measured delays."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "DelayModel":
        from broker.delay.models import from_json  # takes time, and few commands need it

        text = str(value)
        try:
            if text.lower().endswith(".csv"):
                delays_ms, summary = files.delays(Path(text))
                click.echo(plain(f"{text}: {summary}"), err=True)
                return from_json({"kind": "trace", "delays_ms": delays_ms})
            given = strict_json.loads(text.encode())
            return from_json({"kind": "fixed", "ms": given} if isinstance(given, int | float) else given)
        except (ValueError, LabError) as error:
            why = plain(str(error))
            self.fail(f"{text[:60]!r} is neither milliseconds, nor a delay model, nor a .csv file: {why}", param, ctx)


_DIRECTORY = click.Path(path_type=Path, file_okay=False)
data_dir_option = click.option(
    "--data-dir", type=_DIRECTORY, default=Path(".lab"), help="Directory of the lab's data, logs and state."
)
client_url_option = click.option(
    "--client-url", help="URL of the client service, if the lab does not run from the data directory."
)


def seed_option(meaning: str) -> Callable[[Command], Command]:
    """Pass a seed as ``seed``: the option's value, or a random one."""
    return click.option(
        "--seed",
        type=click.IntRange(0),
        default=lambda: secrets.randbelow(10**6),
        show_default="random",
        help=meaning,
    )


def client_option(command: Command) -> Command:
    """Pass the URL of the client service as ``client_url``: the option's value, or that of the running lab."""

    @functools.wraps(command)
    def run(*arguments: Any, data_dir: Path, client_url: str | None, **options: Any) -> Any:
        return command(*arguments, client_url=client_url or state.url(data_dir, "client"), **options)

    return data_dir_option(client_url_option(run))


def json_option(also: str = "") -> Callable[[Command], Command]:
    """Pass whether to print JSON as ``as_json``. ``also``: additional content of the JSON."""
    return click.option("--json", "as_json", is_flag=True, help=f"Output as JSON{also}.")


def assignments(given: tuple[str, ...], example: str) -> Iterator[tuple[str, str]]:
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise LabError(f"{one[:SHOWN_MAX]!r} is not of the form name=value, such as {example}")
        yield name, text


def interrupt_on_sigterm() -> None:
    """Handle SIGTERM like Ctrl-C, so that everything started is stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def timed_run(
    out: Console, seconds: float, description: str
) -> Iterator[tuple[threading.Event, Callable[[str], None]]]:
    """A progress display, and an event that Ctrl-C sets so that the recorded operations are still checked."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    columns = (TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.fields[done]}"), TimeElapsedColumn())
    began = time.monotonic()
    try:
        with Progress(*columns, console=out, transient=True) as progress:
            bar = progress.add_task(description, total=seconds, done="")
            yield stop, lambda done: progress.update(bar, completed=min(seconds, time.monotonic() - began), done=done)
    finally:
        signal.signal(signal.SIGINT, before)
