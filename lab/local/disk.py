"""Whether there is room on the disks that a data directory is on."""

from __future__ import annotations

import shutil
from pathlib import Path

# Enough for what the processes still write when the disk is as good as full, their logs above all.
FREE_MB_MIN = 16


def shortage(data_dir: Path) -> str | None:
    """Which disk has less than ``FREE_MB_MIN`` left, as a sentence; ``None`` where none has."""
    looked_at: set[int] = set()
    for directory in (data_dir, *data_dir.glob("*/"), *data_dir.glob("replicas/*/")):
        try:
            device = directory.stat().st_dev
            if device in looked_at:
                continue
            looked_at.add(device)
            usage = shutil.disk_usage(directory)
        except OSError:
            continue  # removed meanwhile
        if usage.free < FREE_MB_MIN * 10**6:
            left = f"{usage.free / 1e6:.1f} MB of {usage.total / 1e6:,.0f} MB are left"
            return f"the disk of {directory} is full: {left}, and a lab needs {FREE_MB_MIN} MB"
    return None
