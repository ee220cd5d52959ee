"""The command line on real processes: starting, stopping, restarting, loading files, and its errors."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis
import urllib3
from click.testing import CliRunner

from broker.address import without_password
from broker.connection import connect
from lab.cli import main
from lab.local.supervisor import Lab
from tests.support.http import get, post
from tests.support.ports import base_port
from tests.support.processes import foreground
from tests.support.until import until

in_one_group = pytest.mark.xdist_group("running")
on_default_ports = pytest.mark.xdist_group("default-ports")  # if they are free
SMALL = ("--replicas", "1")  # for tests that need any lab: each process takes time to start


class Cli:
    """``lab`` with its own data directory and ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base_port = base_port()
        self.primary_url = f"http://127.0.0.1:{self.base_port}"

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._line(command, *arguments), capture_output=True, text=True, timeout=90, check=False)

    def up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--detach", "--base-port", str(self.base_port), *arguments)

    def start(self, command: str, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
        return foreground(self._line(command, *arguments))

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("status", "--json").stdout))

    def pids(self) -> dict[str, int]:
        return {node["id"]: node["pid"] for node in self.status()["nodes"]}

    def _line(self, command: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "lab", command, "--data-dir", str(self.directory), *arguments]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    found = Cli(tmp_path / "lab")
    yield found
    found.run("down")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A running lab for the tests that leave it running, which are in one group."""
    found = Cli(tmp_path_factory.mktemp("running") / "lab")
    started = found.up()
    assert started.returncode == 0, started.stderr
    yield found
    found.run("down")


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_ended(pids: dict[str, int]) -> bool:
    return not any(map(is_running, pids.values()))


def test_up_status_down_and_up_again_with_the_same_data(cli: Cli) -> None:
    up = cli.up()
    assert up.returncode == 0, up.stderr
    assert "lab14-replica2" in up.stdout
    status = cli.run("status")
    assert (status.returncode, status.stdout.count(" ok")) == (0, 6)
    found = cli.status()
    assert found["healthy"]
    assert [node["role"] for node in found["nodes"]] == ["primary", "replica", "replica", "client", "worker", "log"]
    written = post(f"{cli.primary_url}/data", {"key": "k", "value": {"a": 1}})
    post(f"{cli.primary_url}/admin/replication-delay", {"replica": "lab14-replica1", "delay_ms": 77})
    get(f"http://127.0.0.1:{cli.base_port + 2}/version?min_position={written['position']}&timeout_ms=5000")
    down = cli.run("down")
    assert (down.returncode, down.stdout) == (0, "The lab is stopped.\n")
    assert all_ended({node["id"]: node["pid"] for node in found["nodes"]})
    status = cli.run("status")
    assert (status.returncode, "lab up" in status.stderr) == (1, True)
    assert cli.run("down").returncode == 0
    cli.up()
    for offset in range(3):
        assert get(f"http://127.0.0.1:{cli.base_port + offset}/data/k")["version"] == written["version"]
    delays = get(f"{cli.primary_url}/admin/replication-delays")["delays"]
    assert delays[f"http://lab14-replica1:{cli.base_port + 1}"] == 77


@in_one_group
def test_two_labs_side_by_side_do_not_disturb_each_other(running: Cli, tmp_path: Path) -> None:
    other = Cli(tmp_path / "other")  # its ports are chosen among those that are free now
    try:
        assert other.up("--replicas", "3").returncode == 0
        version = post(f"{running.primary_url}/data", {"key": "k", "value": 1})["version"]
        assert get(f"{running.primary_url}/version")["version"] == version > 0
        assert get(f"{other.primary_url}/version")["version"] == 0
        assert len(get(f"{running.primary_url}/replicas")["replicas"]) == 2
        assert len(get(f"{other.primary_url}/replicas")["replicas"]) == 3
    finally:
        other.run("down")
    assert running.status()["healthy"]


@in_one_group
def test_a_second_lab_in_the_same_directory_is_refused_and_the_first_keeps_running(running: Cli) -> None:
    before = running.pids()
    again = running.up()
    assert again.returncode == 1
    assert again.stderr.startswith("Error: a lab already runs in ")
    assert again.stderr.count("\n") == 1
    assert running.pids() == before


@in_one_group
def test_a_port_in_use_is_a_one_line_error_and_nothing_is_left_running(running: Cli, tmp_path: Path) -> None:
    other = Cli(tmp_path / "other")
    other.base_port = running.base_port
    up = other.up()
    assert up.returncode == 1
    assert f"{running.base_port}" in up.stderr
    assert "--base-port" in up.stderr
    assert "Traceback" not in up.stderr
    assert other.run("status").returncode == 1
    assert running.status()["healthy"]


def test_of_two_labs_started_on_the_same_ports_at_once_only_one_reports_that_it_runs(cli: Cli, tmp_path: Path) -> None:
    other = Cli(tmp_path / "other")
    other.base_port = cli.base_port
    try:
        with ThreadPoolExecutor(2) as threads:
            ups = list(threads.map(lambda one: one.up(*SMALL), (cli, other)))
        assert sorted(up.returncode for up in ups) == [0, 1]
        one, another = (cli, other) if ups[0].returncode == 0 else (other, cli)
        assert one.status()["healthy"]
        assert another.run("status").returncode == 1
        assert "port" in ups[1 if one is cli else 0].stderr
    finally:
        other.run("down")


@in_one_group
def test_killed_processes_are_restarted(running: Cli) -> None:
    before = running.pids()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(pid not in {None, before[name]} for name, pid in running.pids().items()), 30)
    until(lambda: running.status()["healthy"], 30)
    assert {node["id"]: node["restarts"] for node in running.status()["nodes"]} == dict.fromkeys(running.pids(), 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with the one that started them")
def test_no_process_outlives_a_killed_supervisor_and_a_new_lab_can_start(cli: Cli) -> None:
    cli.up(*SMALL)
    pids = cli.pids()
    os.kill(cli.status()["pid"], signal.SIGKILL)
    until(lambda: all_ended(pids), 20)
    assert cli.run("status").returncode == 1
    assert cli.up(*SMALL).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_foreground_stops_everything(cli: Cli, number: signal.Signals) -> None:
    with cli.start("up", "--base-port", str(cli.base_port), *SMALL) as process:
        until(lambda: cli.run("status").returncode == 0, 40)
        pids = cli.pids()
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in output
    assert all_ended(pids)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--base-port", "x"], "--base-port"),
        (["--base-port", "80"], "--base-port"),
        (["--replicas", "0"], "--replicas"),
        (["--replicas", "21"], "--replicas"),
        (["--redis-url", "nonsense"], "is not the URL of a log server"),
        (["--redis-url", "redis://127.0.0.1:1/0"], "cannot be reached"),
        (["--log-server", "other"], "--log-server"),
        (["--host", "203.0.113.7"], "in use"),
    ],
)
@pytest.mark.parametrize("detach", [True, False])
def test_an_invalid_option_is_a_one_line_error(
    arguments: list[str], sentence: str, detach: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = ["--data-dir", str(tmp_path)]
    base = [] if "--base-port" in arguments else ["--base-port", str(base_port())]
    line = ["up", *directory, *(["--detach"] if detach else []), *base, *arguments]
    monkeypatch.setattr(sys, "argv", ["lab", *line])  # which the command in the background repeats
    found = CliRunner().invoke(main, line)
    assert found.exit_code in {1, 2}
    assert sentence in found.stderr
    assert isinstance(found.exception, SystemExit), "and no other exception"
    assert CliRunner().invoke(main, ["status", *directory]).exit_code == 1


def test_a_bad_setting_of_a_node_is_reported_and_nothing_is_left_running(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_THREADS", "many")
    up = cli.up()
    assert up.returncode == 1
    assert "LAB_THREADS is 'many'" in up.stderr
    assert "a whole number from 4 to 4096" in up.stderr
    assert cli.run("status").returncode == 1


@in_one_group
def test_logs_of_one_node_of_all_and_of_an_unknown_one(running: Cli, tmp_path: Path) -> None:
    assert Cli(tmp_path / "none").run("logs").returncode == 1
    assert "lab14-primary" in running.run("logs").stdout
    only = running.run("logs", "replica1", "--lines", "1").stdout
    assert only.startswith("lab14-replica1")
    unknown = running.run("logs", "replica9")
    assert (unknown.returncode, "lab14-replica2" in unknown.stderr) == (1, True)


@in_one_group
def test_the_stream_is_shown_with_pending_entries(running: Cli) -> None:
    position = post(f"{running.primary_url}/data", {"key": "[red]k[/]", "value": "\u001b[31mx"})["position"]
    shown = running.run("stream").stdout
    assert "[red]k[/]" in shown
    assert "\u001b" not in shown
    url = json.loads((running.directory / "lab.json").read_text())["redis_url"]
    assert f"redis-cli --no-auth-warning -u {url} XRANGE lab14:log - +" in shown
    found = json.loads(running.run("stream", "--json").stdout)
    assert found["entries"][-1]["position"] == found["head"]["position"] == position
    groups = {group["replica"]: group for group in found["groups"]}
    assert set(groups) == {"lab14-replica1", "lab14-replica2"}
    assert groups["lab14-replica2"]["last_delivered"] == position


@in_one_group
def test_only_a_reader_of_the_users_files_can_use_the_log_server(running: Cli) -> None:
    url = json.loads((running.directory / "lab.json").read_text())["redis_url"]
    assert connect(url).ping()
    stranger = redis.Redis.from_url(without_password(url))
    with stranger, pytest.raises(redis.exceptions.AuthenticationError):
        stranger.ping()
    password = urlsplit(url).password
    assert password
    own = [psutil.Process(pid) for pid in [running.status()["pid"], *running.pids().values()]]
    lines = [" ".join(process.cmdline()) for one in own for process in [one, *one.children(recursive=True)]]
    assert len(lines) > 6
    assert not any(password in line for line in lines)
    assert password not in running.run("status").stdout + running.run("status", "--json").stdout
    for path in running.directory.rglob("*"):
        if path.is_file() and password.encode() in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_password_of_another_log_server_is_not_shown(cli: Cli) -> None:
    for url in ("redis://user:se/c@ret@127.0.0.1:1/0", "redix://:se/c@ret@127.0.0.1:1/0"):
        done = cli.up("--redis-url", url)
        assert done.returncode != 0
        assert "ret@" not in done.stdout + done.stderr
        assert "127.0.0.1:1" in done.stderr


def test_another_log_server_can_be_used(cli: Cli, server: Any) -> None:
    assert cli.up("--redis-url", server.url, *SMALL).returncode == 0
    found = cli.status()
    assert "log" not in {node["role"] for node in found["nodes"]}
    assert post(f"{cli.primary_url}/data", {"key": "k", "value": 1})["version"] == 1


@on_default_ports
def test_the_demo_reports_its_figures_and_leaves_nothing(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "lab", "demo", "--json", "--windows", "2"]
    found = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    facts = json.loads(found.stdout)
    assert facts["delays_ms"] == {"lab14-replica1": 500, "lab14-replica2": 1500}
    assert facts["versions_at_once"] == {"lab14-primary": 1, "lab14-replica1": 0, "lab14-replica2": 0}
    assert set(facts["versions_after"].values()) == {1}
    assert facts["pending_at_once"] == {"lab14-replica1": 1, "lab14-replica2": 1}
    assert len(facts["windows"]["consistency_time_ms"]) == 2
    assert facts["slow_replica"]["consistency_time_ms"] > 2900
    assert facts["read_your_writes"]["primary"]["stale_replicas"]
    redelivery = facts["redelivery"]
    held, again, done = redelivery["moments"].values()
    assert held["position"] == again["position"] == done["position"] == done["acknowledged_position"]
    assert held["acknowledged_position"] not in {None, held["position"]}
    assert [list(moment["deliveries"].values()) for moment in (held, again, done)] == [[1] * 5, [2] * 5, []]
    assert held["deliveries"].keys() == again["deliveries"].keys()
    assert (redelivery["applied_again"], redelivery["digests_equal"]) == (0, True)
    assert facts["stream"]["groups"][1]["pending"] == 1
    assert list(tmp_path.iterdir()) == []


@on_default_ports
def test_ctrl_c_in_the_demo_stops_everything(tmp_path: Path) -> None:
    output = ""
    with foreground([sys.executable, "-m", "lab", "demo"], cwd=tmp_path) as process:
        assert process.stdout is not None
        while "One write" not in output:
            line = process.stdout.readline()
            assert line, output
            output += line
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in rest
    url = next(line.split()[1] for line in output.splitlines() if line.startswith("lab14-primary"))
    with pytest.raises(urllib3.exceptions.HTTPError):
        get(f"{url}/health")


ITEM = '{"key":"loaded","value":1}'


@pytest.mark.parametrize(
    ("content", "written", "refused"),
    [
        pytest.param(ITEM + "\r" + ITEM + "\n", 2, [], id="lone carriage return"),
        pytest.param('{"key":"loaded",\r"value":1}\n', 1, [], id="carriage return inside"),
        pytest.param("\ufeff" + ITEM + "\n" + ITEM, 2, [], id="byte order mark"),
        pytest.param(f"[\n{ITEM},\n{ITEM}\n]", 2, [], id="array"),
        pytest.param(f"{ITEM}\n[{ITEM}]\n{ITEM}", 2, ["line 2"], id="array among lines"),
        pytest.param('{"key":"a","value":1,"\\u001b]0;t\\u0007":1}\n' + ITEM, 1, ["line 1"], id="control character"),
        pytest.param(ITEM + "\r\n{\r\n" + ITEM, 2, ["line 2"], id="not JSON"),
    ],
)
def test_every_item_is_written_or_its_line_is_reported(
    fresh: Lab, tmp_path: Path, content: str, written: int, refused: list[str]
) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(content.encode())
    done = CliRunner().invoke(main, ["load", str(path), "--primary-url", fresh.primary_url])
    assert done.exit_code == (1 if refused else 0), done.output
    assert get(f"{fresh.primary_url}/version")["version"] == written
    assert [line.split(":")[0] for line in done.stderr.splitlines() if line.startswith("line")] == refused
    assert not set(done.output) & {"\x1b", "\x07"}
