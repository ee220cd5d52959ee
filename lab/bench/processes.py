"""What processes take of the machine, each with its children."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def memory_mb(*pids: int) -> float:
    """Memory of these processes and all their children, in 10^6 bytes: their own, and their share of what several use.

    Where the system does not tell shares (macOS), what is resident, which counts shared pages for each.
    """
    found = [process.memory_full_info() for process in _with_children(pids)]
    return sum(getattr(one, "pss", one.rss) for one in found) / 1e6


def cpu_seconds(*pids: int) -> float:
    """Processor time that these processes and all their children have used so far."""
    times = [process.cpu_times() for process in _with_children(pids)]
    return float(sum(one.user + one.system for one in times))


def _with_children(pids: Iterable[int]) -> list[psutil.Process]:
    processes = [psutil.Process(pid) for pid in pids]
    return processes + [child for process in processes for child in process.children(recursive=True)]
