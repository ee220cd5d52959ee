"""Ports for the labs of tests."""

import os
from random import SystemRandom

from lab.local.layout import free_base_port


def base_port() -> int:
    """Return a free base port from this worker's share of the blocks.

    Finding a free block and using it are two steps, so workers that drew from the same blocks would collide.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    share = range(10_000 + 100 * worker, 32_000, 100 * workers)
    return free_base_port(SystemRandom(), preferred=SystemRandom().sample(share, len(share)))
