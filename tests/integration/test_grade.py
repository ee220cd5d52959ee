"""``lab grade`` on a lab: the examples, replicas that are each wrong in one way, and programs that misbehave."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.grade import run
from lab.grade.levels import LEVELS
from lab.grade.report import weigh
from lab.grade.surroundings import Surroundings
from tests.support import planted
from tests.support.until import until

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bring-your-own.md"
PLANTED = ROOT / "tests" / "support" / "planted"
SEED = 14


def grade(*arguments: str, command: list[str]) -> tuple[int, dict[str, Any]]:
    line = [sys.executable, "-m", "lab", "grade", "--seed", str(SEED), "--json", *arguments, "--", *command]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def words(found: dict[str, Any]) -> dict[int, str]:
    return {level["level"]: level["words"] for level in found["levels"] if level["passed"] is not True}


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    with run.surroundings(lambda _: nullcontext()) as found:
        yield found


@pytest.mark.needs("minutes")
@pytest.mark.timeout(120)
def test_the_command_on_the_page_shows_that_the_example_passes() -> None:
    (script,) = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    line = ["bash", "-e", "-c", script]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✔ 1 serves" in done.stdout


@pytest.mark.needs("minutes")
@pytest.mark.timeout(300)
def test_the_example_that_is_right_passes_every_further_level() -> None:
    status, found = grade("--level", "4-8", command=[sys.executable, "examples/replicas/correct.py"])
    assert (status, found["passed"]) == (0, 5), words(found)
    assert all(count for level in found["levels"] for count in level["tested"].values())


@pytest.mark.needs("minutes", "node")
@pytest.mark.timeout(120)
def test_the_example_without_packages_recovers() -> None:
    status, found = grade("--level", "2-3", command=["node", "examples/replicas/replica.mjs"])
    assert (status, found["passed"]) == (0, 2), words(found)


@pytest.mark.needs("minutes")
@pytest.mark.xdist_group("grade")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", planted.FAILS_FIRST)
def test_a_replica_that_is_wrong_in_one_way_fails_the_level_about_it(around: Surroundings, name: str) -> None:
    number, said = planted.FAILS_FIRST[name]
    level = LEVELS[number - 1]
    outcome = weigh(level, run.play(around, [sys.executable, str(PLANTED / f"{name}.py")], level, SEED))
    print(outcome.words)
    assert outcome.passed is False
    assert said in outcome.words
    assert outcome.events


@pytest.mark.needs("minutes")
@pytest.mark.xdist_group("grade")
@pytest.mark.timeout(120)
def test_the_built_in_replica_is_graded_like_any_other(around: Surroundings) -> None:
    level = LEVELS[2]
    outcome = weigh(level, run.play(around, [sys.executable, "-m", "nodes", "replica"], level, SEED))
    assert outcome.passed, outcome.words


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    mark = f"--{tmp_path.name}"
    program = [sys.executable, str(ROOT / "examples" / "replicas" / "correct.py"), mark]
    line = [sys.executable, "-m", "lab", "grade", "--", *program]

    def started() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if mark in (one.info["cmdline"] or ())]

    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as grader:
        until(lambda: len(started()) == 3, 40, started)  # the grader, the keeper and the program
        lab = psutil.Process(grader.pid).children(recursive=True)
        grader.send_signal(signal.SIGINT)
        output = grader.communicate(timeout=30)[0]
    assert grader.returncode == 130, output
    assert not started()
    assert not any(one.is_running() for one in lab)
    assert not list(tmp_path.iterdir())
