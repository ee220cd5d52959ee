"""A lab whose log has three servers and three Sentinels: the log outlives its master."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from click.testing import CliRunner

from lab.cli import main
from lab.local.log_server import DROPPED
from lab.local.supervisor import Lab
from tests.integration.conftest import converge, frozen, running_lab
from tests.support.http import ask, get
from tests.support.until import until

pytestmark = pytest.mark.xdist_group("high availability")
SWITCH_SECONDS = 30.0


@pytest.fixture(scope="module")
def ha_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("ha"), ha=True) as started:
        yield started


def shown(lab: Lab, command: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, [command, "--json", "--data-dir", str(lab.data_dir)])
    return dict(json.loads(done.stdout))


def master(lab: Lab) -> str:
    return str(shown(lab, "status")["log_master"])


def write(lab: Lab, key: str) -> None:
    """Write until it is acknowledged: while there is no master, a write is refused."""

    def acknowledged() -> bool:
        try:
            return ask("POST", f"{lab.primary_url}/data", {"key": key, "value": 1}, Idempotency_Key=key)[0] == 200
        except urllib3.exceptions.HTTPError:
            return False

    until(acknowledged, SWITCH_SECONDS)


def read(lab: Lab, key: str) -> list[int]:
    return [get(f"{url}/data/{key}")["value"] for url in (lab.primary_url, *lab.replica_urls.values())]


def test_status_and_stream_show_the_master(ha_lab: Lab) -> None:
    found = shown(ha_lab, "status")
    assert found["healthy"], found
    roles = {node["id"]: node.get("log_role") or node["role"] for node in found["nodes"]}
    assert {name: role for name, role in roles.items() if name.startswith("lab14-redis")} == {
        "lab14-redis1": "master",
        "lab14-redis2": "replica",
        "lab14-redis3": "replica",
    }
    assert [name for name, role in roles.items() if role == "sentinel"] == [f"lab14-sentinel{n}" for n in (1, 2, 3)]
    assert found["log_master"] == shown(ha_lab, "stream")["server"] == "lab14-redis1"
    out = CliRunner().invoke(main, ["stream", "--data-dir", str(ha_lab.data_dir)]).output
    assert "lab14:log on lab14-redis1, " in out
    port = ha_lab.options.base_port + 79
    assert f"@127.0.0.1:{port}/0 XRANGE lab14:log - + COUNT 20" in out


def test_the_logs_of_servers_and_sentinels_are_shown(ha_lab: Lab) -> None:
    for name in ("redis3", "sentinel2"):
        done = CliRunner().invoke(main, ["logs", name, "--data-dir", str(ha_lab.data_dir)])
        assert f"lab14-{name}" in done.output


@pytest.mark.parametrize("victim", ["master", "lab14-sentinel1"])
def test_a_killed_process_is_restarted_and_writes_continue(ha_lab: Lab, victim: str) -> None:
    name = master(ha_lab) if victim == "master" else victim
    pid = ha_lab.pids[name]
    os.kill(pid, signal.SIGKILL)
    write(ha_lab, f"after-{name}")
    until(lambda: ha_lab.pids.get(name) not in {None, pid})
    until(lambda: shown(ha_lab, "status")["healthy"], SWITCH_SECONDS)
    converge(ha_lab)
    assert read(ha_lab, f"after-{name}") == [1, 1, 1]


def test_a_damaged_file_of_a_replica_is_repaired_and_replaced_by_the_masters(ha_lab: Lab) -> None:
    name = next(name for name in ("lab14-redis2", "lab14-redis3") if name != master(ha_lab))
    directory = ha_lab.data_dir / name.replace("lab14-redis", "log")
    pid = ha_lab.pids[name]
    with next(directory.glob("appendonlydir/*.incr.aof")).open("ab") as file:
        file.write(b"*1\r\nnonsense")
    os.kill(pid, signal.SIGKILL)
    until((directory / DROPPED).exists, SWITCH_SECONDS)
    until(lambda: shown(ha_lab, "status")["healthy"], SWITCH_SECONDS)
    write(ha_lab, "after-damage")
    assert master(ha_lab) != name


@pytest.mark.needs("minutes")
def test_a_frozen_master_is_replaced_and_a_restarted_lab_keeps_the_new_one(tmp_path: Path) -> None:
    with running_lab(tmp_path, ha=True) as lab:
        write(lab, "before")
        with frozen(lab.pids["lab14-redis1"]):
            write(lab, "during")
            found = shown(lab, "status")
            chosen = found["log_master"]
            assert chosen in {"lab14-redis2", "lab14-redis3"}
            health = {node["id"]: node["health"] for node in found["nodes"]}
            assert (health["lab14-redis1"], health[chosen]) == ("does not answer", "ok")
    assert lab.pids == {}
    with running_lab(tmp_path, ha=True) as lab:
        assert master(lab) == chosen
        converge(lab)
        assert read(lab, "before") == read(lab, "during") == [1, 1, 1]
