"""Failovers of the log server under writes: nothing is doubled or reordered, and what is lost is named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REAL_SERVERS
from tests.integration.conftest import metric
from tests.support.failovers import Failovers, on_cluster, on_sentinels, writers
from tests.support.http import get


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failovers]:
    with on_cluster("valkey", tmp_path_factory.mktemp("cluster")) as found:
        yield found


KINDS = ["kill", "freeze", "command", "back"]


@pytest.fixture(scope="module", params=REAL_SERVERS)
def sentinels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failovers]:
    with on_sentinels(request.param, tmp_path_factory.mktemp("sentinels")) as found:
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_no_failover_doubles_or_reorders_a_write_and_what_it_loses_is_named(sentinels: Failovers, kind: str) -> None:
    with writers(sentinels.lab) as load:
        sentinels.round(kind, load)
    found = sentinels.judge(load)
    assert found.is_right, found


def test_what_was_lost_is_shown(sentinels: Failovers) -> None:
    lost = metric(sentinels.lab.primary_url, "ec_lost_writes_total")[""]
    assert lost == len(sentinels.named())
    assert bool(get(f"{sentinels.lab.primary_url}/health").get("notices")) == bool(lost)


@pytest.mark.parametrize("kind", ["kill", "command", "back"])
def test_with_all_copies_nothing_is_lost(tmp_path: Path, kind: str) -> None:
    with on_sentinels("valkey", tmp_path, copies=1) as failovers:
        with writers(failovers.lab) as load:
            failovers.round(kind, load)
        found = failovers.judge(load)
    assert (found.is_right, found.lost) == (True, set()), found


@pytest.mark.parametrize("kind", ["command", "migrate", "migrate-at-once", "kill"])
def test_a_log_on_a_cluster_is_judged_the_same(cluster: Failovers, kind: str) -> None:
    with writers(cluster.lab) as load:
        cluster.round(kind, load)
    found = cluster.judge(load)
    assert found.is_right, found
