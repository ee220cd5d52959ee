"""Costs that should not grow: a write with the number of keys, and a replica's memory with the log."""

import itertools
import uuid
from collections.abc import Iterator

from broker.connection import connect
from broker.log import Change, ReplicationLog
from lab.bench import setup
from lab.bench.figure import Figure, Scale, Step, Target
from lab.bench.writes import BATCH, microseconds, write_batches
from lab.local.supervisor import Lab

_FEW = 1000
_ROUNDS = 15


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    with Lab.temporary() as lab:
        setup.set_delays(lab, 0)
        yield _keys(lab, scale, step)
        yield _memory(lab, scale, step)


def _keys(lab: Lab, scale: Scale, step: Step) -> Figure:
    client = connect(lab.redis_url)
    logs = {_FEW: ReplicationLog(client, "few"), scale.keys: ReplicationLog(client, "many")}
    for keys, log in logs.items():
        log.open("open")
        for first in range(0, keys, BATCH):
            log.append_many([Change("set", _key(n), "1", uuid.uuid4().hex) for n in range(first, first + BATCH)])
            log.trim(log.head().position)
            step(f"{first:,} of {keys:,} keys")
    costs: dict[int, list[float]] = {keys: [] for keys in logs}
    for _ in range(_ROUNDS):
        for keys, log in logs.items():
            numbers = itertools.count()

            def append(keys: int = keys, log: ReplicationLog = log, numbers: Iterator[int] = numbers) -> None:
                log.append("set", _key(next(numbers) * 7919 % keys), "2", uuid.uuid4().hex)

            costs[keys].append(microseconds(append, scale.calls // 3))
    return Figure(
        "growth", f"an append with {scale.keys:,} keys", "us",
        costs[scale.keys], f"with {_FEW:,}", costs[_FEW], Target("at most", 1.1),
    )  # fmt: skip


def _memory(lab: Lab, scale: Scale, step: Step) -> Figure:
    def memory_mb_after(entries: int) -> list[float]:
        write_batches(lab, entries, step)
        setup.settle(lab)
        return [setup.memory_mb(lab.pids[replica]) for replica in lab.replica_urls]

    before = memory_mb_after(scale.more_entries // 10)
    return Figure(
        "growth", f"a replica's memory, {scale.more_entries:,} entries later", "MB",
        memory_mb_after(scale.more_entries), "before", before, Target("at most", 1.1),
    )  # fmt: skip


def _key(number: int) -> str:
    return f"key-{number:07}"
