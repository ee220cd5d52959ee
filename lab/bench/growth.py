"""What does not grow: the cost of a write with the number of keys, and a replica's memory with the log."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from broker.connection import connect
from broker.log import Change, ReplicationLog
from lab.bench import load, processes, setup
from lab.bench.figure import Figure, Target
from lab.bench.scale import Scale
from lab.bench.step import Step
from lab.bench.writes import BATCH, batch_request
from lab.local.supervisor import Lab

_FEW = 1000
_ROUNDS = 15


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    """Both, on one lab."""
    with setup.running() as lab:
        setup.set_delays(lab, 0)
        yield _keys(lab, scale, step)
        yield _memory(lab, scale, step)


def _keys(lab: Lab, scale: Scale, step: Step) -> Figure:
    """The same writes to a store with few keys and to one with many, on one log server, in turns."""
    client = connect(lab.redis_url)
    few, many = ReplicationLog(client, "few"), ReplicationLog(client, "many")
    for log, keys in ((few, _FEW), (many, scale.keys)):
        log.open("open")
        for first in range(0, keys, BATCH):
            log.append_many([Change("set", _key(n), "1", uuid.uuid4().hex) for n in range(first, first + BATCH)])
            log.trim(log.head().position)
            step(f"{first:,} of {keys:,} keys")
    costs: dict[int, list[float]] = {_FEW: [], scale.keys: []}
    for _ in range(_ROUNDS):
        for log, keys in ((few, _FEW), (many, scale.keys)):
            began = time.perf_counter()
            for number in range(scale.calls // 3):
                log.append("set", _key(number * 7919 % keys), "2", uuid.uuid4().hex)
            costs[keys].append((time.perf_counter() - began) / (scale.calls // 3) * 1e6)
    return Figure(
        "growth", f"an append with {scale.keys:,} keys", "us",
        costs[scale.keys], f"with {_FEW:,}", costs[_FEW], Target("at most", 1.1),
    )  # fmt: skip


def _memory(lab: Lab, scale: Scale, step: Step) -> Figure:
    """The replicas' memory before and after many entries."""

    def write(entries: int) -> None:
        for written in range(0, entries, BATCH):
            load.once(lab.primary_url, batch_request())
            step(f"{written:,} of {entries:,} entries")
        setup.settle(lab)

    def memory_mb() -> list[float]:
        pids = lab.pids
        return [processes.memory_mb(pids[replica]) for replica in lab.replica_urls]

    write(scale.more_entries // 10)
    before = memory_mb()
    write(scale.more_entries)
    return Figure(
        "growth", f"a replica's memory, {scale.more_entries:,} entries later", "MB",
        memory_mb(), "before", before, Target("at most", 1.1),
    )  # fmt: skip


def _key(number: int) -> str:
    return f"key-{number:07}"
