"""What the lab's processes take of the machine."""

from __future__ import annotations

import os

import psutil

from lab.runner import Lab


def memory_mib(lab: Lab) -> dict[str, float]:
    """Memory of each process of the lab with its children, by name: its own and its share of what several use.

    Where the system does not tell shares (macOS), what is resident, which counts shared pages for each.
    """
    found = {}
    for name, family in _families(lab).items():
        memory = [process.memory_full_info() for process in family]
        found[name] = sum(getattr(one, "pss", one.rss) for one in memory) / 2**20
    return found


def cpu_seconds(lab: Lab) -> float:
    """Processor time that all processes of the lab have used so far, and the one that runs them."""
    families = [*_families(lab).values(), [psutil.Process(os.getpid())]]
    times = [process.cpu_times() for family in families for process in family]
    return float(sum(one.user + one.system for one in times))


def _families(lab: Lab) -> dict[str, list[psutil.Process]]:
    found = {}
    for name, pid in lab.pids.items():
        process = psutil.Process(pid)
        found[name] = [process, *process.children(recursive=True)]
    return found
