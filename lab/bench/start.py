"""How soon the lab is there, and what it takes while nobody asks anything."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from random import SystemRandom

from lab import layout
from lab.bench import processes, site
from lab.bench.figure import Figure, Target
from lab.bench.scale import Scale
from lab.bench.step import Step

_SERVICES = ("nodes.primary.app", "nodes.replica.app", "nodes.client.app", "lab.experiments.app")
_IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    """Start, imports, and an idle lab."""
    yield _up(scale, step)
    for module in _SERVICES:
        line = [sys.executable, "-c", _IMPORT.format(module)]
        seconds = [float(subprocess.check_output(line)) for _ in range(scale.rounds)]
        step(f"import {module}")
        yield Figure("start", f"import {module}", "s", seconds, target=Target("at most", 0.6))
    with site.running() as lab:
        time.sleep(2)  # until the start is over
        began, used = time.perf_counter(), processes.cpu_seconds(lab)
        step("idle")
        time.sleep(scale.idle_seconds)
        share = (processes.cpu_seconds(lab) - used) / (time.perf_counter() - began)
        memory = processes.memory_mib(lab)
        yield Figure("start", "idle lab, all processes", "% of a core", [share * 100], target=Target("at most", 3))
        yield Figure("start", "its memory in all", "MiB", [sum(memory.values())], target=Target("at most", 350))
        for name in sorted(memory):
            yield Figure("start", f"of which {name}", "MiB", [memory[name]])


def _up(scale: Scale, step: Step) -> Figure:
    """``lab up --detach``, which returns when all is healthy."""
    rounds = []
    for _ in range(scale.rounds):
        with tempfile.TemporaryDirectory(prefix="lab-bench-") as directory:
            lab = [sys.executable, "-m", "lab"]
            place = ["--data-dir", directory]
            port = ["--base-port", str(layout.free_base_port(SystemRandom()))]
            began = time.perf_counter()
            subprocess.run([*lab, "up", "--detach", *place, *port], check=True, capture_output=True)
            rounds.append(time.perf_counter() - began)
            subprocess.run([*lab, "down", *place], check=True, capture_output=True)
            step("lab up --detach")
    return Figure("start", "lab up --detach, until all is healthy", "s", rounds, target=Target("at most", 3))
