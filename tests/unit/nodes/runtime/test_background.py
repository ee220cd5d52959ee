"""Background threads: they survive errors, and run on any core."""

import os
import subprocess
import sys
import threading

import pytest

from broker.errors import LogUnreachable
from nodes.runtime.background import Background
from tests.support.until import until

SCRIPT = """
import os, threading
from nodes.runtime import background
every = sorted(os.sched_getaffinity(0))
background.share_one_core({number})
found = []
def look():
    found.append(os.sched_getaffinity(0))
    background.use_any_core()
    found.append(os.sched_getaffinity(0))
thread = threading.Thread(target=look)
thread.start()
thread.join()
one = {{every[{number} % len(every)]}}
assert found == [one, set(every)], found
assert os.sched_getaffinity(0) == one
"""


def test_a_thread_continues_after_an_error_and_reports_it() -> None:
    steps: list[int] = []
    recovered = threading.Event()

    def step() -> None:
        steps.append(1)
        if len(steps) <= 2:
            raise LogUnreachable("gone")
        recovered.set()
        thread.pause(0.01)

    thread = Background("test", step)
    thread.start()
    assert until(lambda: thread.trouble) == "gone"
    assert recovered.wait(5)
    until(lambda: thread.trouble is None)
    thread.stop()
    until(lambda: not thread._thread.is_alive())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a process choose")
@pytest.mark.parametrize("number", [0, 1, 8003])
def test_request_threads_share_a_core_and_the_others_can_use_any(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(number=number)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
