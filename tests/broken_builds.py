"""Builds of the lab with one deliberate bug each, and the tests that catch them: ``make broken``.

A test that cannot fail proves nothing. Each build is a copy with one bug. The fast tests of broker and nodes, a short
torture run and the simulation execute against it: the simulation must fail within a minute, the others can.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.bugs import BUILDS, Build

ROOT = Path(__file__).parent.parent
_COPIED = ("broker", "nodes", "lab", "tests", "docs", "deploy", "setup.cfg", "pyproject.toml")
_FAST = ("tests/unit/nodes", "tests/unit/broker", "tests/contract")
_TESTS_SECONDS, _TORTURE_SECONDS, _SIMULATION_SECONDS = 300, 300, 300
_ENDED = 130  # the exit status of a command that was asked to end
_FOUND_SECONDS = 60.0  # within which the simulation has to find a bug, on two cores that do nothing else


def make(build: Build, directory: Path) -> None:
    """Write a copy of the lab with the bug."""
    copy(directory)
    file = directory / build.path
    text = file.read_text(encoding="utf-8")
    if text.count(build.before) != 1:
        raise AssertionError(
            f"{build.path} does not contain exactly once what {build.name!r} changes: update the build"
        )
    file.write_text(text.replace(build.before, build.after), encoding="utf-8")


def copy(directory: Path) -> None:
    """Copy what the tests need."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)


def failing_tests(directory: Path) -> list[str]:
    """Return the first fast tests that fail."""
    options = ["-q", "-n", "auto", "--dist", "loadgroup", "--timeout", "20", "-p", "no:cacheprovider", "--maxfail", "3"]
    line = ["-m", "pytest", *options, *_FAST]
    done = _run(directory, line, _TESTS_SECONDS)
    return [text.split(" - ")[0].split("::")[-1] for text in done.stdout.splitlines() if text.startswith("FAILED ")]


def torture(directory: Path, seconds: float = 20, seed: int = 14) -> list[str]:
    """Return the violations that a torture run finds."""
    done = _run(
        directory, ["-m", "lab", "torture", "--json", "--seed", str(seed), "--seconds", str(seconds)], _TORTURE_SECONDS
    )
    if done.returncode not in {0, 1} or not done.stdout.startswith("{"):
        return [f"no verdict: {done.stderr.strip()[-200:]}"]
    found = json.loads(done.stdout)
    broken = [verdict["guarantee"] for verdict in found["verdicts"] if verdict["verdict"] != "held"]
    return broken + [f"level {level}" for level in found["broken_promises"]]


@dataclass(frozen=True)
class Simulated:
    """What the simulation found, and after how long. ``core_seconds``: the time that each of its processes computed, on
    average, which other programs on the machine do not prolong.
    """

    is_found: bool
    words: str
    seconds: float
    core_seconds: float

    @property
    def is_in_time(self) -> bool:
        return self.is_found and min(self.seconds, self.core_seconds) <= _FOUND_SECONDS

    def __str__(self) -> str:
        took = f"after {self.seconds:.0f} s, {self.core_seconds:.0f} s of each core"
        return f"{self.words}, {took}{'' if self.is_in_time else f': not within {_FOUND_SECONDS:.0f} s'}"


def simulated(directory: Path, jobs: int = 2) -> Simulated:
    """Run the simulation with one seed after another until one fails."""
    options = ["--seeds", "1-1000", "--minutes", "5", "--jobs", str(jobs), "--first", "--no-shorten", "--json"]
    started, computed = time.monotonic(), _computed_seconds()
    done = _run(directory, ["-m", "lab", "simulate", *options], _SIMULATION_SECONDS)
    failures = []
    if done.returncode in {0, 1} and done.stdout.startswith("{"):
        failures = json.loads(done.stdout)["failures"]
        words = f"{failures[0]['rule']} (seed {failures[0]['seed']})" if failures else "clean"
    else:
        words = "clean" if done.returncode == _ENDED else f"no verdict: {done.stderr.strip()[-200:]}"
    return Simulated(bool(failures), words, time.monotonic() - started, (_computed_seconds() - computed) / jobs)


def _computed_seconds() -> float:
    """Return the seconds that the processes which this one started have computed."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _run(directory: Path, line: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments. Once the time is up it is asked to end, so that it ends what it has started."""
    environment = {**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *line]
    with subprocess.Popen(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            found = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            found = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, *found)


def main() -> int:
    """Test each build; return 1 if the simulation does not find any bug in time, or if the tests fail without a bug."""
    with tempfile.TemporaryDirectory(prefix="lab-broken-") as name:
        copy(Path(name))
        if failing := failing_tests(Path(name)):
            sys.stdout.write(f"without a bug, {', '.join(failing)} fails\n")
            return 1
    missed = 0
    for build in BUILDS:
        with tempfile.TemporaryDirectory(prefix="lab-broken-") as name:
            make(build, Path(name))
            tests, found, simulation = failing_tests(Path(name)), torture(Path(name)), simulated(Path(name))
        missed += not simulation.is_in_time
        sys.stdout.write(f"a build that {build.name}\n")
        sys.stdout.write(f"  tests:      {f'fail, first {tests[0]}' if tests else 'none fails'}\n")
        sys.stdout.write(f"  torture:    {', '.join(found) or 'clean'}\n")
        sys.stdout.write(f"  simulation: {simulation}\n")
        sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
