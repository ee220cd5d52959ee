"""The command line; ``lab --help`` lists its commands."""

from importlib import import_module
from typing import Any

import click
from typing_extensions import override

from lab import __version__
from lab.errors import LabError
from lab.terminal import plain

# Each command is the function of this name in the module of this name, imported only when it runs to keep startup fast.
COMMANDS = {
    "bench": "Measure the lab against minimal baselines, in the same run.",
    "check": "Run sessions through a consistency level, and check which guarantees held.",
    "delay": "Show and change the replicas' delays and acknowledgement delays.",
    "demo": "Walk through the lab with live numbers, on a temporary lab.",
    "down": "Stop the lab; its data stays.",
    "experiment": "Measure the running lab in the background, and compare with the prediction.",
    "fault": "Inject faults into replicas and the log server, and repair them.",
    "grade": "Grade a program that consumes the log, on a lab of its own.",
    "load": "Write every item of FILE.",
    "logs": "Show the logs of all processes.",
    "predict": "Predict the staleness of reads from delay models alone.",
    "probe": "Measure how stale the reads of a store's replicas are.",
    "simulate": "Run the lab in virtual time, disturb it, and check every step.",
    "status": "Show the health, position and lag of every node.",
    "stream": "Show the log: newest entries, groups, and pending entries.",
    "torture": "Run the chaos test: inject faults under load, then check the history.",
    "up": "Start a lab: log server, primary, replicas, client.",
    "watch": "Show the lab live.",
}


class LabGroup(click.Group):
    """Reports an error of the lab as a one-line message."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabError as error:
            click.echo(f"Error: {plain(str(error))}{error.advice}", err=True)
            ctx.exit(error.exit_code)


class _LazyGroup(LabGroup):
    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return getattr(import_module(f"lab.cli.{cmd_name}"), cmd_name) if cmd_name in COMMANDS else None

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="lab")
def main() -> None:
    """Watch and measure eventual consistency: one write, one log, late replicas.

    \b
    lab demo           a 30-second tour
    lab up --detach    start a lab and leave it running
    lab status         its state
    lab watch          its state, live
    lab down           stop it; its data stays
    """
