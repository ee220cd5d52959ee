"""Many at once: twenty replicas on one machine, and hundreds of requests that wait for one position."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime

from broker.stats import quantile
from lab.bench import load, setup
from lab.bench.figure import Figure, Target
from lab.bench.scale import Scale
from lab.bench.step import Step
from lab.bench.writes import requests
from lab.local.supervisor import Lab

_WRITES_PER_SECOND = 50
_DELAY_MS = 100
_WAKE_DELAY_MS = 1500
_WAKE_ROUNDS = 5


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    """Both."""
    with setup.running(replicas=scale.replicas) as lab:
        yield _lateness(lab, scale, step)
    with setup.running() as lab:
        yield _wake(lab, scale, step)


def _lateness(lab: Lab, scale: Scale, step: Step) -> Figure:
    """How late entries are applied on all replicas, under a steady load: p99 of a round."""
    setup.set_delays(lab, _DELAY_MS)
    setup.settle(lab)
    rounds = []
    with load.Paced(lab.primary_url, requests(), _WRITES_PER_SECOND):
        for _ in range(scale.rounds):
            begin = setup.position(lab)
            time.sleep(scale.seconds)
            late = [
                entry["lateness_ms"]
                for url in lab.replica_urls.values()
                for entry in setup.ask("GET", f"{url}/applied?after={begin}")["applied"]
            ]
            rounds.append(quantile(late, 0.99))
            step(f"{len(lab.replica_urls)} replicas")
    return Figure(
        "crowd", f"lateness on {len(lab.replica_urls)} replicas, {_WRITES_PER_SECOND} writes/s, p99", "ms",
        rounds, target=Target("at most", 100),
    )  # fmt: skip


def _wake(lab: Lab, scale: Scale, step: Step) -> Figure:
    """From the apply on a replica to the answer at each of those who wait for it: p50 of a round."""
    replica, url = next(iter(lab.replica_urls.items()))
    setup.set_delays(lab, _WAKE_DELAY_MS)
    rounds = []
    for _ in range(_WAKE_ROUNDS):
        begin = setup.position(lab)
        path = f"/version?min_position={begin.epoch}-{begin.version + 1}&timeout_ms=20000"
        with ExitStack() as stack:
            sockets = [stack.enter_context(load.connected(url)) for _ in range(scale.waiting)]
            for one in sockets:
                one.sendall(load.request("GET", path))
            setup.ask("POST", f"{lab.primary_url}/data", {"key": "wake", "value": 1})
            arrived_ms = _arrivals_ms(sockets)
        (entry,) = setup.ask("GET", f"{url}/applied?after={begin}")["applied"]
        rounds.append(quantile(arrived_ms, 0.5) - _ms(entry["applied_at"]))
        step(f"{scale.waiting} waiting at {replica}")
    return Figure(
        "crowd", f"{scale.waiting} waiting readers are answered after, p50", "ms",
        rounds, target=Target("at most", 60),
    )  # fmt: skip


def _ms(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp() * 1000


def _arrivals_ms(sockets: list[socket.socket]) -> list[float]:
    """When each was answered, by the clock of this machine, which is also the log server's."""
    return [time.time() * 1000 for _ in load.answers(sockets)]
