"""Full disks of a replica and of the log server."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.cli import main
from lab.local.layout import Options
from lab.local.supervisor import Lab
from tests.integration.conftest import applied, is_healthy
from tests.integration.recovery.conftest import OTHER, REPLICA, all_there, short_lab, status
from tests.support.disks import disk, full
from tests.support.http import ask, get
from tests.support.load import Writers
from tests.support.ports import base_port
from tests.support.until import until

pytestmark = pytest.mark.needs("mount")


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("lab")
    with (
        disk(directory / "log"),
        disk(directory / "replicas" / REPLICA),
        short_lab(directory) as running,
    ):
        yield running


def test_a_replica_with_a_full_disk_continues_where_it_stopped(quick: Lab) -> None:
    with Writers(quick.primary_url, count=2, rate=100, keys=20) as load:
        until(lambda: len(load.acknowledged) > 20)
        url = quick.replica_urls[REPLICA]
        with full(quick.data_dir / "replicas" / REPLICA):
            found = until(lambda: (health := ask("GET", f"{url}/health"))[0] == 503 and health[1], 30)
            assert "full" in found["checks"]["store"]
            mark = len(load.acknowledged)
            until(lambda: len(load.acknowledged) > mark + 50)
            assert get(f"{url}/data")["data"]
            until(lambda: status(quick)["version_behind"] > 20)
            assert status(quick, OTHER)["version_behind"] < 50
        until(lambda: ask("GET", f"{url}/health")[0] == 200, 20)
    all_there(quick, load)
    assert all(entry["lateness_ms"] >= 0 for entry in applied(url))


def test_a_log_server_with_a_full_disk_refuses_writes_and_recovers(quick: Lab) -> None:
    with Writers(quick.primary_url, count=2, rate=100, keys=20) as load:
        until(lambda: len(load.acknowledged) > 20)
        with full(quick.data_dir / "log"):

            def refused() -> dict[str, Any] | None:
                code, found = ask("POST", f"{quick.primary_url}/data", {"key": "other", "value": 1})
                return found if code == 503 else others.append(found)

            others: list[dict[str, Any]] = []
            found = until(refused, 20)
            assert (found["outcome"], "No space left" in found["detail"]) == ("not_applied", True)
            assert get(f"{quick.replica_urls[REPLICA]}/data")["data"]
        mark = len(load.acknowledged)
        until(lambda: len(load.acknowledged) > mark + 20, 30)
    load.acknowledged += others
    all_there(quick, load)


def test_a_lab_with_a_full_disk_continues_and_reports_it(tmp_path: Path) -> None:
    said: list[str] = []
    options = Options(tmp_path / "lab", base_port())
    with disk(options.data_dir), Lab(options, said.append) as lab:
        with full(lab.data_dir):
            pid = lab.pids[REPLICA]
            os.killpg(pid, signal.SIGKILL)
            until(lambda: lab.pids.get(REPLICA) not in {None, pid}, 20)
            until(lambda: any("is full: " in sentence for sentence in said))
            shown = CliRunner().invoke(main, ["status", "--data-dir", str(lab.data_dir)])
            assert (shown.exit_code, f"the disk of {lab.data_dir} is full" in shown.stdout) == (3, True)
        until(lambda: is_healthy(lab), 40)
        until(lambda: "the disk has free space again" in said)
    other = tmp_path / "other"
    with disk(other), full(other):
        found = CliRunner().invoke(main, ["up", "--data-dir", str(other)])
        assert (found.exit_code, "is full: 0.0 MB of 67 MB are left" in found.stderr) == (1, True)
