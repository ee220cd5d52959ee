"""Which cores a node's threads run on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, threading
from nodes.runtime import cores
every = sorted(os.sched_getaffinity(0))
cores.share_one({number})
found = []
def look():
    found.append(os.sched_getaffinity(0))
    cores.use_any()
    found.append(os.sched_getaffinity(0))
thread = threading.Thread(target=look)
thread.start()
thread.join()
one = {{every[{number} % len(every)]}}
assert found == [one, set(every)], found
assert os.sched_getaffinity(0) == one
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a process choose")
@pytest.mark.parametrize("number", [0, 1, 8003])
def test_request_threads_share_a_core_and_the_others_may_use_any(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(number=number)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
