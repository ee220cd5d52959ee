"""``lab up``: start a lab, in the foreground or in the background."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from lab.cli.options import data_dir_option, interrupt_on_sigterm
from lab.errors import LabError
from lab.local import detached, state
from lab.local.layout import REPLICAS_MAX, Options
from lab.local.supervisor import Lab
from lab.terminal import console


@click.command()
@data_dir_option
@click.option(
    "--base-port",
    type=click.IntRange(1024, 65_400),
    default=8000,
    help="Port of the primary; replicas and client use the next ones, the log server +79 (--ha: also +73 to +77).",
)
@click.option("--host", default="127.0.0.1", help="Address that the nodes listen on.")
@click.option("--replicas", type=click.IntRange(1, REPLICAS_MAX), default=2, help="Number of replicas.")
@click.option("--redis-url", help="URL of a Redis or Valkey server to use instead of starting one.")
@click.option(
    "--log-server",
    type=click.Choice(["valkey", "redis-server"]),
    default="valkey",
    help="Log server to start: the embedded Valkey, or the system's redis-server.",
)
@click.option(
    "--fsync",
    type=click.Choice(["everysec", "always"]),
    default="everysec",
    help="When the log is flushed to disk; 'always' also survives a power loss.",
)
@click.option("--ha", is_flag=True, help="Start three log servers and three Sentinels, which replace a dead master.")
@click.option("--detach", is_flag=True, help="Return once everything is healthy, and leave it running.")
@click.option("--open", "open_console", is_flag=True, help="Open the console in the browser.")
def up(*, detach: bool, open_console: bool, **chosen: Any) -> None:
    """Start a lab: log server, primary, replicas, client.

    Without --detach it runs until Ctrl-C. The data stays in the data directory either way.

    \b
    Example: lab up --detach --base-port 9000 --data-dir /tmp/second-lab
    """
    if chosen["ha"] and chosen["redis_url"] is not None:
        raise LabError("--ha starts log servers, and --redis-url uses a running one; choose one of them")
    if detach:
        _in_background(chosen["data_dir"], open_console=open_console)
    else:
        _in_foreground(Options(**chosen), open_console=open_console)


def _in_foreground(options: Options, *, open_console: bool) -> None:
    out = console()
    lab = Lab(options, on_event=lambda sentence: out.print(sentence, markup=False))
    interrupt_on_sigterm()
    try:
        with out.status("Starting the lab"):
            lab.start()
        if out.is_terminal:
            _show_status(lab.data_dir)
        with suppress(OSError):  # a closed pipe: the lab keeps running
            out.print(f"The lab runs, with its console at {lab.client_url}/; Ctrl-C stops it.")
        if open_console:
            click.launch(f"{lab.client_url}/")
        lab.wait()
    except KeyboardInterrupt:
        out.print("Stopping the lab")
    finally:
        lab.stop()


def _in_background(data_dir: Path, *, open_console: bool) -> None:
    out = console()
    with out.status("Starting the lab"):
        detached.start(data_dir, [argument for argument in sys.argv[1:] if argument not in {"--detach", "--open"}])
    _show_status(data_dir)
    url = f"{state.url(data_dir, 'client')}/"
    out.print(f"The lab runs in the background, with its console at {url}; `lab down` stops it.")
    if open_console:
        click.launch(url)


def _show_status(data_dir: Path) -> None:
    # Imported here: the log server client would stay in memory while a lab in the foreground runs.
    from lab.cli.status import observe, picture

    console().print(picture(observe(state.require(data_dir), data_dir)))
