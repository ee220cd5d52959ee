"""The catch-up rate of replicas, against bare loops that read, store and acknowledge the same entries."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from broker.connection import connect
from broker.position import Position
from lab.bench import load, setup
from lab.bench.figure import Figure, Scale, Step, Target
from lab.bench.writes import write_batches
from lab.local.layout import NAMESPACE
from lab.local.supervisor import Lab

_READS_PER_SECOND = 50
_CATCH_UP_SECONDS = 300


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    """Partition both replicas, then let them catch up on ``scale.entries`` entries; the bare loops read the same."""
    keep = str(scale.entries + 100_000)  # prevents trimming during the partition
    with Lab.temporary(environment={"LAB_LOG_KEEP": keep}) as lab:
        setup.set_delays(lab, 0)
        write_batches(lab, 1, step)  # something to read
        setup.settle(lab)
        ours, bare = [], []
        for _ in range(max(2, scale.rounds - 2)):
            start = setup.position(lab)
            for replica in lab.replica_urls:
                setup.ask("POST", f"{lab.client_url}/faults", {"replica": replica, "fault": "partition"})
            write_batches(lab, scale.entries, step)
            ours.append(_catch_up(lab, start, scale.entries))
            step("replicas catch up")
            bare.append(_bare(lab, start, scale.entries))
            step("bare loops")
        yield Figure(
            "apply", f"catching up on {scale.entries:,}, each of two replicas", "1/s",
            ours, "bare loops, two at once", bare, Target("at least", 0.5),
        )  # fmt: skip


def _catch_up(lab: Lab, start: Position, entries: int) -> float:
    """Return entries per second of each replica, from its first to its last; meanwhile both are read."""
    setup.ask("POST", f"{lab.client_url}/faults/reset")

    def seconds(url: str) -> float:
        times = []
        for reached in (start.version + 1, start.version + entries):
            query = f"min_position={start.epoch}-{reached}&timeout_ms={_CATCH_UP_SECONDS * 1000}"
            setup.ask("GET", f"{url}/version?{query}", timeout_seconds=_CATCH_UP_SECONDS + 5)
            times.append(time.perf_counter())
        return times[1] - times[0]

    with ThreadPoolExecutor() as threads, ExitStack() as reading:
        for url in lab.replica_urls.values():
            reading.enter_context(load.paced(url, [load.request("GET", "/data/key-1")], _READS_PER_SECOND))
        return (entries - 1) / max(threads.map(seconds, lab.replica_urls.values()))


def _bare(lab: Lab, start: Position, entries: int) -> float:
    client: Any = connect(lab.redis_url)
    stream = f"{NAMESPACE}:log"
    groups = [f"bare{number}" for number in range(len(lab.replica_urls))]
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as directory:
        loops: list[Any] = []
        for group in groups:
            client.xgroup_create(stream, group, id=str(start))
            arguments = [stream, group, str(entries), f"{directory}/{group}"]
            line = [sys.executable, "-m", "lab.bench.baselines.apply_loop", *arguments]
            environment, pipe = {**os.environ, "LAB_REDIS_URL": lab.redis_url}, subprocess.PIPE
            loops.append(subprocess.Popen(line, env=environment, stdin=pipe, stdout=pipe, text=True))
        for loop in loops:
            loop.stdout.readline()  # it is ready
        for loop in loops:
            loop.stdin.write("go\n")
            loop.stdin.flush()
        seconds = [json.loads(loop.communicate()[0])["seconds"] for loop in loops]
    for group in groups:
        client.xgroup_destroy(stream, group)
    return float(entries / max(seconds))
