"""The time to start the lab, and the resources of an idle one."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom

from lab.bench import setup
from lab.bench.figure import Figure, Scale, Step, Target
from lab.local import layout, state
from lab.local.state import LabState

_SERVICES = ("nodes.primary.app", "nodes.replica.app", "nodes.client.app", "nodes.worker.app")
_IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    starts: list[float] = []
    for _ in range(scale.rounds):
        step("lab up --detach")
        began = time.perf_counter()
        with _up() as running:
            starts.append(time.perf_counter() - began)
            if len(starts) == scale.rounds:
                idle = list(_idle(running, scale, step))
    yield Figure("start", "lab up --detach, until all is healthy", "s", starts, target=Target("at most", 3))
    for module in _SERVICES:
        step(f"import {module}")
        line = [sys.executable, "-c", _IMPORT.format(module)]
        seconds = [float(subprocess.check_output(line)) for _ in range(scale.rounds)]
        yield Figure("start", f"import {module}", "s", seconds, target=Target("at most", 0.6))
    yield from idle


def _idle(running: LabState, scale: Scale, step: Step) -> Iterator[Figure]:
    step("idle")
    time.sleep(2)  # until startup is complete
    began, used = time.perf_counter(), setup.cpu_seconds(running.pid)
    time.sleep(scale.idle_seconds)
    share = (setup.cpu_seconds(running.pid) - used) / (time.perf_counter() - began)
    yield Figure("start", "idle lab, all processes", "% of a core", [share * 100], target=Target("at most", 3))
    whole = setup.memory_mb(running.pid)
    yield Figure("start", "memory in total", "MB", [whole], target=Target("at most", 350))
    parts = {node.id: setup.memory_mb(node.pid) for node in running.nodes if node.pid is not None}
    yield Figure("start", "memory of lab up", "MB", [whole - sum(parts.values())])
    for name, memory in parts.items():
        yield Figure("start", f"memory of {name.partition('-')[2]}", "MB", [memory])


@contextmanager
def _up() -> Iterator[LabState]:
    lab = [sys.executable, "-m", "lab"]
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as directory:
        place = ["--data-dir", directory]
        port = ["--base-port", str(layout.free_base_port(SystemRandom()))]
        subprocess.run([*lab, "up", "--detach", *place, *port], check=True, capture_output=True)
        try:
            yield state.require(Path(directory))
        finally:
            subprocess.run([*lab, "down", *place], check=True, capture_output=True)
