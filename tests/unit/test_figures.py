"""The errors of ``docs/figures.py`` if a tool is missing, before it starts a lab."""

import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

ROOT = Path(__file__).parents[2]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with an empty PATH and neither playwright nor matplotlib; starting a lab fails the test."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("matplotlib", "playwright", "playwright.sync_api"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "lab.report.page", raising=False)
    monkeypatch.delattr("lab.report.page", raising=False)
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.delitem(sys.modules, "figures", raising=False)
    found = importlib.import_module("figures")
    monkeypatch.setattr(found, "Lab", lambda *_, **__: pytest.fail("a lab was started"))
    return found


def run(figures: ModuleType, *arguments: str) -> Result:
    main: click.Group = figures.main
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(
    ("chromium", "status", "said"),
    [
        ([], 1, "Chromium: install it so that it is on the PATH, or pass --chromium PATH."),
        (["--chromium", "/none/chromium"], 2, "'/none/chromium' does not exist."),
        (["--chromium", sys.executable], 1, "playwright: run `make check`, which installs it."),
    ],
)
def test_console_without_a_tool(
    figures: ModuleType, tmp_path: Path, chromium: list[str], status: int, said: str
) -> None:
    done = run(figures, "console", *chromium)
    assert done.stderr.endswith(f"{said}\n")
    assert status == 2 or done.stderr.startswith("Error: The picture needs ")
    assert (done.exit_code, list(tmp_path.iterdir())) == (status, [])


@pytest.mark.parametrize("command", ["orders", "curves", "example"])
def test_charts_without_matplotlib(figures: ModuleType, tmp_path: Path, command: str) -> None:
    done = run(figures, command, "--out", str(tmp_path / "out"))
    assert done.stderr.startswith("Error: Charts need matplotlib: install it with ")
    assert (done.exit_code, list(tmp_path.iterdir())) == (1, [])
