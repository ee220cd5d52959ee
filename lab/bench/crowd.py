"""Large numbers: twenty replicas on one machine, and hundreds of requests waiting for one position."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime

from broker.stats import quantile
from lab.bench import load, setup
from lab.bench.figure import Figure, Scale, Step, Target
from lab.bench.writes import REQUESTS
from lab.local.supervisor import Lab

_WRITES_PER_SECOND = 50
_DELAY_MS = 100
_WAKE_DELAY_MS = 1500
_WAKE_ROUNDS = 5


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    with Lab.temporary(replicas=scale.replicas) as lab:
        yield _lateness(lab, scale, step)
    with Lab.temporary() as lab:
        yield _wake(lab, scale, step)


def _lateness(lab: Lab, scale: Scale, step: Step) -> Figure:
    setup.set_delays(lab, _DELAY_MS)
    setup.settle(lab)
    rounds = []
    urls = lab.replica_urls.values()
    with load.paced(lab.primary_url, REQUESTS, _WRITES_PER_SECOND):
        for _ in range(scale.rounds):
            start = setup.position(lab)
            time.sleep(scale.seconds)
            late = [entry["lateness_ms"] for url in urls for entry in setup.applied_after(url, start)]
            rounds.append(quantile(late, 0.99))
            step(f"{len(urls)} replicas")
    name = f"lateness on {len(urls)} replicas, {_WRITES_PER_SECOND} writes/s, p99"
    return Figure("crowd", name, "ms", rounds, target=Target("at most", 100))


def _wake(lab: Lab, scale: Scale, step: Step) -> Figure:
    replica, url = next(iter(lab.replica_urls.items()))
    setup.set_delays(lab, _WAKE_DELAY_MS)
    rounds = []
    for _ in range(_WAKE_ROUNDS):
        start = setup.position(lab)
        path = f"/version?min_position={start.epoch}-{start.version + 1}&timeout_ms=20000"
        with ExitStack() as stack:
            sockets = [stack.enter_context(load.connected(url)) for _ in range(scale.waiting)]
            for one in sockets:
                one.sendall(load.request("GET", path))
            setup.ask("POST", f"{lab.primary_url}/data", {"key": "wake", "value": 1})
            # By the clock of this machine, which is also the log server's.
            arrived_ms = [time.time() * 1000 for _ in load.answers(sockets)]
        (entry,) = setup.applied_after(url, start)
        rounds.append(quantile(arrived_ms, 0.5) - datetime.fromisoformat(entry["applied_at"]).timestamp() * 1000)
        step(f"{scale.waiting} waiting at {replica}")
    name = f"{scale.waiting} waiting readers are answered after, p50"
    return Figure("crowd", name, "ms", rounds, target=Target("at most", 60))
