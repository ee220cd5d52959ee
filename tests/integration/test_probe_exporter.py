"""The dashboard's panels on a real Prometheus that scrapes the probe of a real store."""

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import redis_replicas
from tests.support.prometheus import Prometheus, panels
from tests.support.redis_replicas import Replicas
from tests.support.until import until

pytestmark = [pytest.mark.needs("prometheus"), pytest.mark.xdist_group("prometheus"), pytest.mark.timeout(120)]
# Panels that a probe has data for, and the queries that have it: a store has no configured delay, for one.
PANELS = {
    "Converged": [0],
    "Slowest replica": [0],
    "Window, p95": [0],
    "Within 5 s": [0],
    "Lag per replica": [0],
    "Version race": [0, 1],
    "Seconds behind": [0],
    "Versions behind": [0],
    "State": [0],
    "Commit to apply, p50 and p95": [0, 1],
    "Applied and acknowledged": [0, 1],
    "Consistency window": [0, 1, 2],
    "Window distribution": [0],
    "P(converged ≤ t)": [0],
    "Writes and applies": [0],
    "Write duration": [0, 1],
}
SECONDS = "ec_replica_lag_seconds"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Replicas]:
    with redis_replicas.running("valkey", tmp_path) as started:
        yield started


@pytest.fixture
def url(store: Replicas) -> Iterator[str]:
    """The address of an exporter, which ends cleanly."""
    nodes = [redis_replicas.address(server) for server in (store.primary, store.slow, store.fast)]
    line = ["probe", "redis", "--primary", nodes[0], "--replica", nodes[1], "--replica", nodes[2]]
    command = [sys.executable, "-m", "lab", *line, "--listen", "0", "--rate", "5", "--give-up", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        (found,) = re.findall(r"(http://127\.0\.0\.1:\d+)/metrics", process.stdout.readline())
        yield found
        process.terminate()
        assert process.wait(20) == 0
    assert store.primary.client.exists("lab_probe") == 0


def test_the_panels_have_data_lag_grows_while_replication_is_stopped_and_unknown_is_absent(
    store: Replicas, url: str
) -> None:
    slow, fast = (f"127.0.0.1:{server.port}" for server in (store.slow, store.fast))
    with Prometheus.of_probe(url) as prometheus:

        def lag(replica: str) -> float:
            """The lag of a replica; infinite if it is absent, as all are after a scrape that failed."""
            return prometheus.values(SECONDS).get(replica, math.inf)

        for title, numbers in PANELS.items():
            for query in (panels()[title][number] for number in numbers):
                until(lambda query=query: prometheus.query(query), 20)
        delay = "histogram_quantile(0.5, ec_replication_delay_seconds_bucket)"
        until(lambda: prometheus.values(delay).get(slow, 0) > 0.19, 20)
        until(lambda: lag(fast) == 0, 20)

        store.proxy.cut()
        until(lambda: 3 < lag(slow) < math.inf, 20)  # longer than after which a write is given up
        until(lambda: lag(fast) < 1, 20)

        store.proxy.mend()
        store.fast.stop()
        until(lambda: lag(slow) < 1, 20)
        until(lambda: list(prometheus.values(SECONDS)) == [slow], 40)
        alert = 'ALERTS{alertname="ProbeFailing"}'
        until(lambda: list(prometheus.values(alert)) == [fast], 20)
        store.fast.cont()
        until(lambda: lag(fast) < math.inf, 20)
