"""How fast writes are taken: one by one, many at once, and by the log alone."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from broker.connection import connect
from broker.log import ReplicationLog
from lab.bench import load, setup
from lab.bench.baselines import flask_app
from lab.bench.figure import Figure, Target
from lab.bench.scale import Scale
from lab.bench.step import Step
from lab.local.supervisor import Lab
from nodes.primary.writes import BATCHES_MAX

CONNECTIONS = 32
BATCH = 1000
_KEYS = 1000


def requests() -> list[bytes]:
    """Writes of short values to a thousand keys."""
    return [load.request("POST", "/data", json.dumps(_item(number)).encode()) for number in range(_KEYS)]


def batch_request() -> bytes:
    """The same as one batch."""
    body = "\n".join(json.dumps(_item(number)) for number in range(BATCH)).encode()
    return load.request("POST", "/data/batch", body, "application/x-ndjson")


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    """All of them, in turns, on one lab without delays."""
    with (
        setup.running() as lab,
        setup.bare_primary(lab) as bare_url,
        setup.bare_primary(lab, "metrics") as measured_url,
    ):
        setup.set_delays(lab, 0)
        yield from _requests(lab, bare_url, measured_url, scale, step)
        yield _appends(lab, scale, step)


def _requests(lab: Lab, bare_url: str, measured_url: str, scale: Scale, step: Step) -> Iterator[Figure]:
    single, batched = requests(), [batch_request()]
    for url in (lab.primary_url, bare_url, measured_url):
        load.run(url, single, CONNECTIONS, min(1.0, scale.seconds))  # connections and caches
    ours, bare, measured, many = [], [], [], []
    for _ in range(scale.rounds):
        setup.settle(lab)
        ours.append(load.run(lab.primary_url, single, CONNECTIONS, scale.seconds))
        step("POST /data")
        setup.settle(lab)
        bare.append(load.run(bare_url, single, CONNECTIONS, scale.seconds))
        step("a bare Flask app")
        measured.append(load.run(measured_url, single, CONNECTIONS, scale.seconds))
        step("a bare Flask app with metrics")
        many.append(load.run(lab.primary_url, batched, BATCHES_MAX, scale.seconds))
        step("POST /data/batch")
    each = [one.per_second for one in ours]
    yield Figure(
        "writes", f"POST /data, {CONNECTIONS} connections", "1/s",
        each, "bare Flask app", [one.per_second for one in bare], Target("at least", 0.75),
    )  # fmt: skip
    for name, q, target in (("p50", 0.5, None), ("p99", 0.99, Target("at most", 1.5))):
        yield Figure(
            "writes", f"its latency, {name}", "ms",
            [one.quantile_ms(q) for one in ours], "bare Flask app", [one.quantile_ms(q) for one in bare], target,
        )  # fmt: skip
    yield Figure(
        "writes", "a bare Flask app with the lab's metrics", "1/s",
        [one.per_second for one in measured], "without", [one.per_second for one in bare],
    )  # fmt: skip
    yield Figure(
        "writes", f"POST /data/batch, {BATCH:,} items, {BATCHES_MAX} connections", "items/s",
        [one.per_second * BATCH for one in many], "POST /data", each, Target("at least", 10),
    )  # fmt: skip


def _appends(lab: Lab, scale: Scale, step: Step) -> Figure:
    """The append script from one thread, against the bare one."""
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
        ours.append(_microseconds(append, scale.calls))
        theirs.append(_microseconds(call, scale.calls))
        step("one thread")
    return Figure("writes", "an append by the log alone, one thread", "us", ours, "bare script call", theirs)


def _microseconds(call: Any, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count * 1e6


def _item(number: int) -> dict[str, str]:
    return {"key": f"key-{number}", "value": f"value {number}"}
