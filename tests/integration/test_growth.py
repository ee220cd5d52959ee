"""Costs that must not grow: a write with the number of keys, and the nodes' memory with the log."""

import statistics
import time
import uuid

import pytest

from broker.connection import connect
from broker.log import Change, ReplicationLog
from lab.local.layout import LOG_SERVER
from lab.local.supervisor import Lab
from tests.integration.conftest import converge, processes, set_delays

FEW, MANY = 1_000, 40_000
_BATCH = 500


def load(log: ReplicationLog, first: int, last: int) -> None:
    for start in range(first, last, _BATCH):
        numbers = range(start, start + _BATCH)
        log.append_many([Change("set", f"key-{n:07}", str(n), uuid.uuid4().hex) for n in numbers])


def write_cost_us(log: ReplicationLog, keys: int) -> float:
    began = time.perf_counter()
    for number in range(_BATCH):
        log.append("set", f"key-{number * (keys // _BATCH):07}", "1", uuid.uuid4().hex)
    return (time.perf_counter() - began) / _BATCH * 1e6


def memory_mib(lab: Lab) -> dict[str, float]:
    """Return the resident memory of each node's worker."""
    found = {}
    for name, pid in lab.pids.items():
        if name != LOG_SERVER:
            found[name] = processes(pid)[-1].memory_info().rss / 2**20
    return found


@pytest.mark.alone
def test_neither_the_cost_of_a_write_grows_with_the_keys_nor_memory_with_the_log(fresh: Lab) -> None:
    set_delays(fresh, 0, 100)
    client = connect(fresh.redis_url)
    log, few, many = (ReplicationLog(client, namespace) for namespace in ("lab14", "few", "many"))
    few.open("open")
    load(few, 0, FEW)
    load(log, 0, 10_000)
    converge(fresh, 40)
    before = memory_mib(fresh)
    load(log, 10_000, MANY)
    converge(fresh, 40)
    after = memory_mib(fresh)
    for key in ("log", "data", "head", "keys", "writes", "write_order"):  # the same content, read by no replica
        assert client.copy(f"lab14:{key}", f"many:{key}")
    rounds = [(write_cost_us(few, FEW), write_cost_us(many, MANY)) for _ in range(15)]
    few_us, many_us = (statistics.median(costs) for costs in zip(*rounds, strict=True))
    ratio = statistics.median(with_many / with_few for with_few, with_many in rounds)
    print(f"a write with {FEW} keys {few_us:.0f} us, with {MANY} keys {many_us:.0f} us: ratio {ratio:.2f}")
    grown = {name: after[name] - before[name] for name in before}
    print(
        "memory, MiB, at 10,000 and 40,000 entries:",
        {name: (round(before[name]), round(after[name])) for name in after},
    )
    assert ratio <= 2
    assert max(grown.values()) <= 60
