"""The command line: help, errors, and features shared by all commands."""

import io
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lab import cli, terminal
from lab.cli import COMMANDS, fault, main


def commands(group: click.Group, *names: str) -> list[list[str]]:
    found = [list(names)]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found += commands(command, *names, name) if isinstance(command, click.Group) else [[*names, name]]
    return found


@pytest.mark.parametrize("command", commands(main), ids=" ".join)
def test_help_describes_the_command_with_an_example(command: list[str]) -> None:
    shown = CliRunner().invoke(main, [*command, "--help"])
    assert shown.exit_code == 0
    assert "\\b" not in shown.output
    assert "Options:" in shown.output
    example = f"lab {' '.join(command)}".strip()
    assert "Commands:" in shown.output or f"Example: {example}" in shown.output


def test_the_list_of_commands_has_the_first_line_of_each_help() -> None:
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert set(COMMANDS) == files - {"__init__", "nodes", "options", "verdicts"}
    for name, line in COMMANDS.items():
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert command.name == name
        assert (command.help or "").startswith(line.removesuffix("."))


def test_help_loads_no_command() -> None:
    script = "import sys; from lab.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"redis", "pydantic", "numpy", "urllib3"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "command",
    [
        ["load", "--primary-url", "http://127.0.0.1:9"],
        ["check", "--history"],
        ["grade", "--table"],
        ["experiment", "run", "--client-url", "http://127.0.0.1:9"],
        ["predict", "replicas", "--replica"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["directory", "device", "nothing"])
def test_a_path_that_is_not_a_file_is_rejected_with_a_message(tmp_path: Path, command: list[str], kind: str) -> None:
    path = tmp_path / "\x1b[31mx.csv"
    if kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    done = CliRunner().invoke(main, [*command, str(path)])
    assert done.exit_code in {1, 2}
    assert isinstance(done.exception, SystemExit)
    said = {"directory": "it is a directory", "device": "it is a device", "nothing": "No such file"}
    assert said[kind] in done.output
    assert done.output.count("\n") <= 4
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    "command",
    [
        ["check", "--seconds", "nan"],
        ["check", "--max-lag-ms", "NaN"],
        ["torture", "--schedule", "--seconds", "nan"],
        ["predict", "replicas", "--replica", "5", "--rate", "nan"],
    ],
    ids=" ".join,
)
def test_nan_is_rejected_by_every_range(command: list[str]) -> None:
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, "is not a number" in done.output) == (2, True)


@pytest.mark.parametrize(
    "command", [["check", "--save"], ["check", "--export"], ["torture", "--save"], ["grade", "--out"]], ids=" ".join
)
def test_an_output_file_that_cannot_be_written_is_rejected_before_any_work(command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, "/none/of/these"])
    assert (done.exit_code, "is not a writable directory" in done.output) == (2, True)


def test_a_name_does_not_control_the_terminal() -> None:
    out = io.StringIO()
    console = terminal.console()
    console.file = out
    console.print("a\x1b]0;title\x07b\x9bc", markup=False)
    console.print(fault.active({"r[/x]": {"error": "\x1b[2J"}}))
    assert out.getvalue().isascii() is False
    assert not set(out.getvalue()) & {"\x1b", "\x07", "\x9b"}
    assert "r[/x]" in out.getvalue()
