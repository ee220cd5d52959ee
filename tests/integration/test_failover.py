"""Failovers of the log server under writes: nothing is doubled or reordered, and what is lost is named."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli import main
from lab.local.supervisor import Lab
from tests.conftest import REAL_SERVERS
from tests.integration.conftest import metric
from tests.support.failovers import Failovers, on_cluster, on_sentinels, writers
from tests.support.http import POOL, get, post

pytestmark = pytest.mark.xdist_group("failover")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failovers]:
    with on_cluster("valkey", tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(scope="module", params=REAL_SERVERS)
def sentinels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failovers]:
    with on_sentinels(request.param, tmp_path_factory.mktemp("sentinels")) as found:
        yield found


@pytest.mark.parametrize("kind", ["kill", "command"])
def test_no_failover_doubles_or_reorders_a_write_and_what_it_loses_is_named(sentinels: Failovers, kind: str) -> None:
    with writers(sentinels.lab) as load:
        sentinels.round(kind, load)
    found = sentinels.judge(load)
    assert found.is_right, found


def test_what_was_lost_is_shown(sentinels: Failovers) -> None:
    lost = metric(sentinels.lab.primary_url, "ec_lost_writes_total")[""]
    assert lost == len(sentinels.named())
    assert bool(get(f"{sentinels.lab.primary_url}/health").get("notices")) == bool(lost)


@pytest.mark.needs("minutes")
@pytest.mark.parametrize("kind", ["command", "migrate", "migrate-at-once", "kill"])
def test_a_log_on_a_cluster_is_judged_the_same(cluster: Failovers, kind: str) -> None:
    with writers(cluster.lab) as load:
        cluster.round(kind, load)
    found = cluster.judge(load)
    assert found.is_right, found


def run(lab: Lab, *words: str) -> str:
    done = CliRunner().invoke(main, [*words, "--data-dir", str(lab.data_dir)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.needs("minutes")
def test_every_command_works_on_a_cluster(cluster: Failovers, tmp_path: Path) -> None:
    lab = cluster.lab
    replica = next(iter(lab.replica_urls))
    lines = tmp_path / "data.jsonl"
    lines.write_text("".join(f'{{"key": "k{n}", "value": {n}}}\n' for n in range(100)))
    assert "100" in run(lab, "load", str(lines))
    assert "{lab14}:log" in run(lab, "stream")
    assert json.loads(run(lab, "status", "--json"))["healthy"]
    run(lab, "delay", "set", replica, "--delay", "30")
    run(lab, "fault", "start", replica, "pause", "duration_ms=200")
    assert replica in run(lab, "fault", "list")
    run(lab, "fault", "end")
    run(lab, "fault", "resync", replica)
    run(lab, "experiment", "run", "windows", "--set", "writes=3")
    assert json.loads(run(lab, "check", "--sessions", "2", "--seconds", "2", "--level", "session", "--json"))
    assert post(f"{lab.primary_url}/admin/reset")["status"] == "reset"
    for where in ("/", "/status", "/read-compare", "/scenes", "/experiments"):
        assert POOL.request("GET", f"{lab.client_url}{where}").status == 200, where
