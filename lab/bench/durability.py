"""What it costs to wait until replicas of the log server have a write, and to verify the server at each write."""

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

from broker.connection import connect, register
from broker.log import ReplicationLog
from broker.primary_store import KEYS
from broker.stats import quantile
from lab.bench.figure import Figure, Scale, Step, Target
from lab.local.supervisor import Lab

_NAMESPACE = "bench"
_COPIES = (0, 1, 2)
_THREADS = (1, 8)
_VERIFYING = "redis.call('INFO', 'replication')"
# The reply of a server in its place, so that only the call itself is missing.
_KNOWN = "'master_replid:{}\\r\\nmaster_replid2:{}'"


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    with Lab.temporary(ha=True) as lab:
        log = ReplicationLog(connect(lab.redis_url), _NAMESPACE)
        log.open(_NAMESPACE)
        for threads in _THREADS:
            yield from _copies(log, threads, scale, step)
        yield _verification("with two replicas", connect(lab.redis_url), scale, step)
    with Lab.temporary() as lab:
        client = connect(lab.redis_url)
        ReplicationLog(client, _NAMESPACE).open("bench")
        yield _verification("on one server", client, scale, step)


def _copies(log: ReplicationLog, threads: int, scale: Scale, step: Step) -> Iterator[Figure]:
    found: dict[int, list[float]] = {copies: [] for copies in _COPIES}
    for _ in range(scale.rounds):
        for copies in _COPIES:
            found[copies].append(_per_second(log, copies, threads, scale.calls))
            step(f"{copies} copies, {threads} threads")
    for copies in _COPIES[1:]:
        name = f"appends with {copies} of 2 copies, {threads} {'thread' if threads == 1 else 'threads'}"
        yield Figure("durability", name, "1/s", found[copies], "without", found[0])


def _per_second(log: ReplicationLog, copies: int, threads: int, calls: int) -> float:
    def write(count: int) -> None:
        for number in range(count):
            log.append("set", f"key-{number % 100}", '"value"', uuid.uuid4().hex, copies=copies)

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(write, calls // threads) for _ in range(threads)]:
            done.result()
    return calls / (time.perf_counter() - began)


def _verification(where: str, client: Any, scale: Scale, step: Step) -> Figure:
    """Call the script with and without the comparison in random order, so that both see the same machine."""
    with_it = register(client, "server.lua", "append.lua")
    replication = client.info("replication")
    trusting = str(with_it.script).replace(_VERIFYING, _KNOWN.format(replication["master_replid"], "0" * 40))
    numbers = itertools.count()

    def append(script: Callable[..., Any]) -> float:
        number = next(numbers)
        fields = ["set", f"key-{number % 100}", '"value"', f"v{number}", "", "0" * 40]
        began = time.perf_counter()
        script(keys=keys, args=[100_000, 0, 0, *fields])
        return (time.perf_counter() - began) * 1e6

    without, keys = client.register_script(trusting), [f"{_NAMESPACE}:{name}" for name in KEYS]
    random = Random(14)  # noqa: S311 - an order that favors neither
    ours, theirs = [], []
    for _ in range(scale.rounds):
        took: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(2 * scale.calls):
            verifies = random.random() < 0.5
            took[verifies].append(append(with_it if verifies else without))
        ours.append(quantile(took[True], 0.5))
        theirs.append(quantile(took[False], 0.5))
        step("verification of the server")
    name = f"an append, which verifies its server, {where}"
    return Figure("durability", name, "us", ours, "without", theirs, Target("at most", 1.1))
