"""The rate of accepted writes: one by one, in batches, and by the log alone."""

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from broker.connection import connect
from broker.log import ReplicationLog
from lab.bench import load, setup
from lab.bench.baselines import flask_app
from lab.bench.figure import Figure, Scale, Step, Target
from lab.local.supervisor import Lab
from nodes.primary.batch import BATCHES_MAX

CONNECTIONS = 32
BATCH = 1000
_KEYS = 1000
_ITEMS = [{"key": f"key-{number}", "value": f"value {number}"} for number in range(_KEYS)]
_LINES = [json.dumps(item).encode() for item in _ITEMS]
REQUESTS = [load.request("POST", "/data", line) for line in _LINES]
_BATCH_REQUEST = load.request("POST", "/data/batch", b"\n".join(_LINES[:BATCH]), "application/x-ndjson")


def write_batches(lab: Lab, entries: int, step: Step) -> None:
    for written in range(0, entries, BATCH):
        setup.ask("POST", f"{lab.primary_url}/data/batch", _ITEMS[:BATCH])
        step(f"{written:,} of {entries:,} entries")


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    with Lab.temporary() as lab, setup.bare_primary(lab) as bare_url, setup.bare_primary(lab, "metrics") as metrics_url:
        setup.set_delays(lab, 0)
        yield from _requests(lab, bare_url, metrics_url, scale, step)
        yield _appends(lab, scale, step)


def _requests(lab: Lab, bare_url: str, metrics_url: str, scale: Scale, step: Step) -> Iterator[Figure]:
    loads = {
        "POST /data": (lab.primary_url, REQUESTS, CONNECTIONS),
        "a bare Flask app": (bare_url, REQUESTS, CONNECTIONS),
        "a bare Flask app with metrics": (metrics_url, REQUESTS, CONNECTIONS),
        "POST /data/batch": (lab.primary_url, [_BATCH_REQUEST], BATCHES_MAX),
    }
    for url in (lab.primary_url, bare_url, metrics_url):
        load.run(url, REQUESTS, CONNECTIONS, min(1.0, scale.seconds))  # connections and caches
    found: dict[str, list[load.Loaded]] = {name: [] for name in loads}
    for _ in range(scale.rounds):
        for name, (url, requests, connections) in loads.items():
            if requests is REQUESTS:
                setup.settle(lab)
            found[name].append(load.run(url, requests, connections, scale.seconds))
            step(name)
    ours, bare, metrics, batches = ([one.per_second for one in rounds] for rounds in found.values())
    yield Figure(
        "writes", f"POST /data, {CONNECTIONS} connections", "1/s",
        ours, "bare Flask app", bare, Target("at least", 0.75),
    )  # fmt: skip
    for name, q, target in (("p50", 0.5, None), ("p99", 0.99, Target("at most", 1.5))):
        ours_ms, bare_ms, *_ = ([one.quantile_ms(q) for one in rounds] for rounds in found.values())
        yield Figure("writes", f"its latency, {name}", "ms", ours_ms, "bare Flask app", bare_ms, target)
    yield Figure("writes", "a bare Flask app with the lab's metrics", "1/s", metrics, "without", bare)
    yield Figure(
        "writes", f"POST /data/batch, {BATCH:,} items, {BATCHES_MAX} connections", "items/s",
        [one * BATCH for one in batches], "POST /data", ours, Target("at least", 10),
    )  # fmt: skip


def _appends(lab: Lab, scale: Scale, step: Step) -> Figure:
    client: Any = connect(lab.redis_url)
    log = ReplicationLog(client, "bench")
    log.open("bench")
    bare = client.register_script(flask_app.SCRIPT)
    numbers = itertools.count()

    def append() -> None:
        log.append("set", f"key-{next(numbers) % _KEYS}", '"value"', uuid.uuid4().hex)

    def call() -> None:
        bare(keys=flask_app.KEYS, args=[f"key-{next(numbers) % _KEYS}", '"value"'])

    ours, theirs = [], []
    for _ in range(scale.rounds):
        ours.append(microseconds(append, scale.calls))
        theirs.append(microseconds(call, scale.calls))
        step("one thread")
    return Figure("writes", "an append by the log alone, one thread", "us", ours, "bare script call", theirs)


def microseconds(call: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count * 1e6
