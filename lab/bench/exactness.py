"""The difference between measured and configured delays, against a client that polls."""

import itertools
import time
from collections.abc import Iterator

from broker.stats import quantile
from lab.bench import load, setup
from lab.bench.figure import Figure, Scale, Step, Target
from lab.bench.writes import REQUESTS
from lab.client import call
from lab.local.supervisor import Lab

DELAYS_MS = (20, 40)
_LOAD_PER_SECOND = 300
_POLL_SECONDS = 0.05
_WINDOWS_PER_ROUND = 20
_POLLS_PER_ROUND = 5
_numbers = itertools.count()


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    """Measure windows through the client service and by polling, in turns; then windows under load."""
    with Lab.temporary() as lab:
        setup.set_delays(lab, *DELAYS_MS)
        setup.settle(lab)
        idle: list[float] = []
        ours, theirs = [], []
        for _ in range(max(1, scale.windows // _WINDOWS_PER_ROUND)):
            late = [_beyond(lab) for _ in range(_WINDOWS_PER_ROUND)]
            polled = [_polled(lab, (poll + 0.5) / _POLLS_PER_ROUND) for poll in range(_POLLS_PER_ROUND)]
            step("idle")
            idle += late
            ours.append(quantile(late, 0.5))
            theirs.append(quantile(polled, 0.5))
        yield Figure(
            "exactness", "window minus longest delay, idle, p50", "ms",
            ours, f"polling every {_POLL_SECONDS * 1000:.0f} ms", theirs, Target("at most", 0.05),
        )  # fmt: skip
        yield _quantile("idle", idle, 0.5, 2)
        yield _quantile("idle", idle, 0.99, 8)
        with load.paced(lab.primary_url, REQUESTS, _LOAD_PER_SECOND):
            loaded = []
            for _ in range(scale.windows):
                loaded.append(_beyond(lab))
                step(f"under {_LOAD_PER_SECOND} writes a second")
        yield _quantile(f"{_LOAD_PER_SECOND} writes/s", loaded, 0.99, 25)


def _quantile(when: str, late_ms: list[float], q: float, target_ms: float) -> Figure:
    name = f"the same, {when}, p{q * 100:.0f} of {len(late_ms)}"
    return Figure("exactness", name, "ms", [quantile(late_ms, q)], target=Target("at most", target_ms))


def _beyond(lab: Lab) -> float:
    found = setup.ask("POST", f"{lab.client_url}/write-and-wait", {"key": "window", "value": 1})
    return float(found["consistency_time_ms"]) - max(DELAYS_MS)


def _polled(lab: Lab, phase: float) -> float:
    """Return the same for a polling client; ``phase`` is the share of a pause left at the acknowledgement."""
    value = f"polled {next(_numbers)}"
    setup.ask("POST", f"{lab.primary_url}/data", {"key": "polled", "value": value})
    began = time.perf_counter()
    time.sleep(phase * _POLL_SECONDS)
    missing = list(lab.replica_urls.values())
    while missing := [url for url in missing if call("GET", f"{url}/data/polled")[1].get("value") != value]:
        time.sleep(_POLL_SECONDS)
    return (time.perf_counter() - began) * 1000 - max(DELAYS_MS)
