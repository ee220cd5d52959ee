"""The command line; ``lab --help`` lists its commands."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from lab import __version__
from lab.bench.figure import GROUPS
from lab.cli.experiment import experiment
from lab.cli.fault import fault
from lab.cli.load import load
from lab.cli.options import Number, OutputFile, client_option, data_dir_option
from lab.cli.predict import predict
from lab.errors import LabError
from lab.text import plain
from nodes.http.level import LEVELS

_DEGRADED = 3


class LabGroup(click.Group):
    """Shows an error of the lab as one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except LabError as error:
            click.echo(f"Error: {plain(str(error))}", err=True)
            ctx.exit(error.exit_code)


def _lab_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--base-port", type=click.IntRange(1024, 65_400), default=8000, show_default=True,
                     help="Primary here, replicas and client behind it, the log server at +79."),
        click.option("--host", default="127.0.0.1", show_default=True, help="The address that the nodes listen on."),
        click.option("--replicas", type=click.IntRange(1, 20), default=2, show_default=True, help="How many."),
        click.option("--redis-url", help="Use this Redis or Valkey server instead of starting one."),
        click.option("--log-server", type=click.Choice(["valkey", "redis-server"]), default="valkey", show_default=True,
                     help="The server to start: the embedded Valkey, or the system's redis-server."),
        click.option("--fsync", type=click.Choice(["everysec", "always"]), default="everysec", show_default=True,
                     help="When the log reaches the disk; 'always' also survives a loss of power."),
    ):  # fmt: skip
        command = option(command)
    return data_dir_option(command)


@click.group(cls=LabGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lab")
def main() -> None:
    """See and measure eventual consistency: one write, one log, late replicas.

    \b
    lab demo           the whole story in 20 seconds
    lab up --detach    start a lab and leave it running
    lab status         how it is
    lab watch          the same, live
    lab down           stop it; its data stays
    """


@main.command()
@_lab_options
@click.option("--detach", is_flag=True, help="Return when everything is healthy, and leave it running.")
@click.option("--open", "open_console", is_flag=True, help="Open the console in the browser.")
def up(detach: bool, open_console: bool, **chosen: Any) -> None:
    """Start a lab: log server, primary, replicas, client.

    Without --detach it runs until Ctrl-C. Data stays in the data directory either way.

    \b
    Example: lab up --detach --base-port 9000 --data-dir /tmp/second-lab
    """
    if detach:
        _up_detached(chosen["data_dir"], open_console=open_console)
    else:
        _up_in_foreground(chosen, open_console=open_console)


@main.command()
@data_dir_option
def down(data_dir: Path) -> None:
    """Stop the lab; its data stays, and `lab up` goes on from there.

    \b
    Example: lab down --data-dir /tmp/second-lab
    """
    from lab.local import detached

    if not detached.stop(data_dir):
        click.echo(f"No lab runs in {data_dir}.")
    else:
        click.echo("The lab is stopped.")


@main.command()
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def status(data_dir: Path, as_json: bool) -> None:
    """Show every node: its health, its position, how many versions it is behind.

    Exit status 0 when all is well, 3 when something is degraded, 1 when no lab runs.

    \b
    Example: lab status --json | jq '.nodes[] | {id, behind}'
    """
    from lab import status
    from lab.local import state
    from lab.terminal import console

    found = status.observe(state.require(data_dir), data_dir)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        out = console()
        out.print(status.table(found))
        if not found["ready"]:
            out.print("The lab is starting.")
        if found["trouble"] is not None:
            out.print(f"Trouble: {found['trouble']}.", style="red", markup=False)
    sys.exit(0 if found["healthy"] else _DEGRADED)


@main.command()
@click.argument("nodes", nargs=-1)
@data_dir_option
@click.option("--lines", type=click.IntRange(0, 100_000), default=20, show_default=True, help="How many of each node.")
@click.option("--follow", is_flag=True, help="Go on with new lines until Ctrl-C.")
def logs(nodes: tuple[str, ...], data_dir: Path, lines: int, follow: bool) -> None:
    """Show what the nodes wrote; all of them, or those named.

    \b
    Example: lab logs replica1 replica2 --follow
    """
    from lab.local import logs

    paths = logs.find(data_dir, nodes)
    width = max(len(path.stem) for path in paths)
    for name, line in logs.last_lines(paths, lines):
        click.echo(f"{name:{width}}  {line}")
    if follow:
        for name, line in logs.follow(paths, time.sleep):
            click.echo(f"{name:{width}}  {line}")


@main.command()
@client_option
def watch(data_dir: Path, client_url: str | None) -> None:
    """Show the lab live: positions, lag with its recent course, what is pending, and what happens. Ctrl-C ends it.

    \b
    Example: lab watch
    """
    from lab import watch
    from lab.local import state

    watch.run(client_url or state.client_url(data_dir), time.sleep)


@main.command()
@data_dir_option
@click.option("--count", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many entries.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def stream(data_dir: Path, count: int, as_json: bool) -> None:
    """Show the log: its newest entries, its groups, and what is pending.

    \b
    Example: lab stream --count 5
    """
    from broker.errors import LogError
    from lab import stream
    from lab.local import state
    from lab.terminal import console

    running = state.require(data_dir)
    try:
        found = stream.observe(running.redis_url, running.namespace, count)
    except LogError as error:
        raise LabError(f"{error}; `lab status` shows what is wrong") from None
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    out = console()
    out.print(stream.picture(found))
    out.print("\n" + ("With redis-cli:" if stream.has_redis_cli() else "With a redis-cli (there is none on the PATH):"))
    for line in stream.redis_cli_lines(running):
        out.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


@main.command()
@data_dir_option
@click.option("--level", type=click.Choice(LEVELS), default="session", show_default=True, help="How to read.")
@click.option("--max-lag-ms", type=Number(0, 86_400_000), help="Bound of level bounded; judges any history.")
@click.option("--max-lag-versions", type=click.IntRange(0), help="The other bound of level bounded.")
@click.option("--sessions", type=click.IntRange(1, 200), default=10, show_default=True, help="How many at once.")
@click.option("--seconds", type=Number(0.1, 86_400), default=10.0, show_default=True, help="How long.")
@click.option("--keys", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, help="What each session does is drawn from it.")
@click.option("--client-url", help="The client service, where the lab does not run from the data directory.")
@click.option(
    "--history", "recorded", type=click.Path(path_type=Path), help="Judge this recorded history; runs nothing."
)
@click.option("--save", type=OutputFile(), help="Write the history here, a JSON line per operation.")
@click.option("--export", type=OutputFile(), help="Write the history as elle-cli reads it (model rw-register).")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def check(data_dir: Path, **chosen: Any) -> None:
    """Run sessions through a consistency level, and check which guarantees held.

    Exit status 1 when one is violated that the level promises, with the smallest counterexample; 2 when nothing was
    tested.

    \b
    Example: lab check --level eventual --seconds 5
    """
    from lab.checking import command

    sys.exit(command.run(data_dir, **chosen))


class _FaultNames(click.ParamType[Any]):
    """Read by the command, so that the command line starts without what reads it."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from lab.torture.command import FaultNames

        return FaultNames().convert(value, param, ctx)


@main.command()
@click.option("--seed", type=click.IntRange(0), help="The schedule is drawn from it; without it, from chance.")
@click.option("--seconds", type=Number(5, 86_400), default=60.0, show_default=True, help="How long.")
@click.option(
    "--faults", type=_FaultNames(), default="", help="Only these, with commas between; default: all but corrupt."
)
@click.option("--replicas", type=click.IntRange(1, 20), default=2, show_default=True, help="Of a lab of its own.")
@click.option("--compose", is_flag=True, help="Torture the stack in containers instead of a lab of its own.")
@click.option("--schedule", "only_schedule", is_flag=True, help="Only show what would be done, and when.")
@click.option("--save", type=OutputFile(), help="Write the history here, for `lab check --history`.")
@click.option("--json", "as_json", is_flag=True, help="For scripts, with the schedule.")
def torture(**chosen: Any) -> None:
    """Break a lab again and again under load, heal it, and judge what it did meanwhile.

    Sessions write and read at every level while processes are killed and hang, replicas have faults, and delays
    change. Nothing may be lost, doubled, reordered, early, regressed or diverged, and every level keeps what it
    promises. Exit status 1 where that is not so; the same seed does the same again.

    \b
    Example: lab torture --seed 14 --seconds 120
    """
    from lab.torture import command

    _on_terminate(_interrupt)
    sys.exit(command.torture(**chosen))


@main.command()
@click.option("--quick", is_flag=True, help="Shorter, to see that everything works; not to be quoted.")
@click.option("--only", type=click.Choice(GROUPS), multiple=True, help="Only this group; several times for several.")
@click.option("--json", "as_json", is_flag=True, help="For scripts, with every round.")
def bench(**chosen: Any) -> None:
    """Measure the lab against the bare parts that it is made of, in the same run.

    \b
    Example: lab bench --only writes
    """
    from lab.bench import command

    _on_terminate(_interrupt)
    command.bench(**chosen)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Only the figures, for scripts.")
@click.option("--windows", type=click.IntRange(1, 1000), default=5, show_default=True, help="Windows to measure.")
def demo(as_json: bool, windows: int) -> None:
    """Tell the whole story on a lab of its own, and stop that again.

    \b
    Example: lab demo --json | jq .windows
    """
    from lab.demo import run

    _on_terminate(_interrupt)
    run(as_json=as_json, windows=windows)


main.add_command(experiment)
main.add_command(fault)
main.add_command(load)
main.add_command(predict)


def _up_in_foreground(chosen: dict[str, Any], *, open_console: bool) -> None:
    from lab.local.layout import Options
    from lab.local.supervisor import Lab
    from lab.terminal import console

    out = console()
    lab = Lab(Options(**chosen), say=lambda sentence: out.print(sentence, markup=False))
    _on_terminate(_interrupt)
    try:
        with out.status("Starting the lab"):
            lab.start()
        if out.is_terminal:  # in a file nobody reads it, and what asks the log server stays in memory
            from lab import status
            from lab.local import state

            out.print(status.table(status.observe(state.require(lab.data_dir), lab.data_dir)))
        with suppress(OSError):  # its reader may be gone: the lab goes on
            out.print(f"The lab runs, with its console at {lab.client_url}/; Ctrl-C stops it.")
        if open_console:
            click.launch(f"{lab.client_url}/")
        lab.wait()
    except KeyboardInterrupt:
        out.print("Stopping the lab")
    finally:
        lab.stop()


def _up_detached(data_dir: Path, *, open_console: bool) -> None:
    from lab import status
    from lab.local import detached
    from lab.terminal import console

    out = console()
    with out.status("Starting the lab"):
        running = detached.start(
            data_dir, [argument for argument in sys.argv[1:] if argument not in {"--detach", "--open"}]
        )
    out.print(status.table(status.observe(running, data_dir)))
    client = running.node_or_none("client")
    url = f"{client.url}/" if client is not None else ""
    out.print(f"The lab runs in the background, with its console at {url}; `lab down` stops it.")
    if open_console:
        click.launch(url)


def _on_terminate(action: Callable[..., Any]) -> None:
    signal.signal(signal.SIGTERM, action)


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
