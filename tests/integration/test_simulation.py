"""The simulation as a whole: many seeds, the same output for the same seed, and nothing of the real world in it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.support.until import until

ROOT = Path(__file__).parents[2]

RUNS, AT_A_TIME = 200, 40
# Seeds with which earlier worlds failed until something was corrected: what level prefix reads; an acknowledgement that
# was lost after an earlier one; a clock that was ahead; a foreign entry in a restarted log.
FAILED = (13, 40, 37, 49)
SHORT_RUNS = """
import sys
from lab.simulation.run import SHORT, simulate

for seed in range(*map(int, sys.argv[1:])):
    outcome = simulate(seed, SHORT.round_seconds, pace=SHORT)
    assert outcome.failure is None, f"seed {seed}: {outcome.failure}"
"""
# Runs a simulation while every use of a thread, a socket or a process is recorded.
WATCHED = """
import socket, sys
from lab.simulation.run import SHORT, simulate

simulate(1, 5, [], SHORT)  # libraries import others at their first use
used = []
watched = ("_thread.start", "socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn")
sys.addaudithook(lambda event, _: used.append(event) if event.startswith(watched) else None)
found = simulate(14, 40, pace=SHORT)
assert found.failure is None, found.failure
assert not used, used
socket.socket().close()
assert used, "the hook records nothing"
"""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("first", range(1, RUNS + 1, AT_A_TIME))
def test_nothing_is_violated(first: int) -> None:
    run(["-c", SHORT_RUNS, str(first), str(first + AT_A_TIME)], timeout_seconds=170)


@pytest.mark.needs("minutes")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", FAILED)
def test_nothing_is_violated_in_longer_runs(seed: int) -> None:
    line = ["-m", "lab", "simulate", "--seed", str(seed), "--minutes", "10", "--no-shorten", "--json"]
    found = json.loads(run(line, timeout_seconds=170))
    assert (found["failures"], found["counts"]["quiet points"]) == ([], 2)


def run(line: list[str], timeout_seconds: float = 50, **environment: str) -> str:
    """Run Python in a process of its own: threads of other tests would be on the virtual clock too."""
    values = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, *line], env=values, capture_output=True, text=True, check=False, timeout=timeout_seconds
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_output_of_a_seed_is_the_same_in_every_process_and_with_several_jobs() -> None:
    line = ["-m", "lab", "simulate", "--seeds", "14-15", "--minutes", "1"]
    assert run(line, PYTHONHASHSEED="0") == run([*line, "--jobs", "2"], PYTHONHASHSEED="1234")


def test_no_thread_socket_or_process_is_real() -> None:
    run(["-c", WATCHED])


@contextmanager
def two_jobs(directory: Path) -> Iterator[psutil.Popen]:
    """``lab simulate`` with two jobs at work, whose files are in this directory."""
    line = [sys.executable, "-m", "lab", "simulate", "--seeds", "1-4", "--hours", "24", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(directory)}
    with psutil.Popen(line, env=environment, start_new_session=True, stderr=subprocess.PIPE) as process:
        try:
            until(lambda: len(list(directory.glob("*/lab-simulation-*"))) == 2, 30)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_ended_command_leaves_no_process_and_no_file(how: signal.Signals, tmp_path: Path) -> None:
    with two_jobs(tmp_path) as process:
        jobs = process.children(recursive=True)
        os.killpg(process.pid, how)  # as a terminal does
        assert process.wait(20) == 130
        assert psutil.wait_procs(jobs, 10)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_a_killed_job_is_an_error_that_says_so(tmp_path: Path) -> None:
    with two_jobs(tmp_path) as process:
        process.children(recursive=True)[-1].kill()
        assert process.wait(20) == 1
        assert b"one of the jobs was killed" in process.stderr.read()
    assert list(tmp_path.iterdir()) == []
