"""The test runner: parallel and exclusive tests, suites by required tools, and time limits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import os
import threading
from pathlib import Path

import pytest


def note(name):
    with Path("order.txt").open("a") as file:
        file.write(f"{name} {os.environ['PYTEST_XDIST_WORKER']}\\n")


@pytest.mark.alone
@pytest.mark.parametrize("number", range(2))
def test_alone(number):
    note("alone")


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(4))
def test_together(number):
    note("together")


@pytest.mark.parametrize("number", range(8))
def test_quick(number):
    note("quick")


def test_hanging():
    try:
        threading.Event().wait()
    finally:
        note("hung")


@pytest.mark.needs("chromium")
def test_page():
    note("page")


@pytest.mark.needs("docker")
def test_container():
    note("container")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("suites")
    (found / "test_some.py").write_text(TESTS)
    (found / "pytest.ini").write_text("[pytest]\nmarkers =\n    alone\n    needs\n")
    return found


def run(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Run pytest in the folder, without ``CI`` in the environment; return exit status and output."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "CI"))}
    plugins = [word for name in ("xdist.plugin", "pytest_timeout", "tests.support.suites") for word in ("-p", name)]
    line = [sys.executable, "-m", "pytest", *plugins, "-rf", *options]
    variables = {**inherited, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    done = subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=50)
    return done.returncode, done.stdout + done.stderr


def test_groups_run_together_marked_tests_run_alone_and_a_hanging_test_is_ended(folder: Path) -> None:
    status, output = run(folder, "-n", "3", "--dist", "loadgroup", "--timeout", "3")
    assert status == 1, output
    ran = [tuple(line.split()) for line in (folder / "order.txt").read_text().splitlines()]
    names = [name for name, _ in ran]
    assert sorted(names) == sorted(["alone"] * 2 + ["hung"] + ["together"] * 4 + ["quick"] * 8)
    assert names[-2:] == ["alone", "alone"], "something ran beside what runs alone"
    assert len({worker for name, worker in ran if name == "together"}) == 1
    assert "FAILED test_some.py::test_hanging" in output
    assert "Timeout (>3.0s)" in output
    assert "threading.Event().wait()" in output, "no stack"
    assert "Not run here: 1 of make test-browser (Chromium); 1 of make test-stack (Docker," in output


def test_a_missing_tool_skips_with_a_reason_and_fails_with_ci(folder: Path) -> None:
    status, output = run(folder, "--suite", "stack", PATH="")
    assert status == 0, output
    assert "Skipped: 1, needs docker." in output
    assert "Not run here: 15 of make test (Python only); 1 of make test-browser (Chromium)." in output
    status, output = run(folder, "--suite", "stack", PATH="", CI="1")
    assert (status, "this machine does not have docker" in output) == (4, True), output
