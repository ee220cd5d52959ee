"""What a lab loses, fills up or finds broken, and how it goes on by itself: nothing acknowledged is missing then."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest
import urllib3

from broker.connection import connect
from broker.events import Events
from lab.layout import Options, free_base_port
from lab.runner import LOG_SERVER, Lab
from tests.integration.conftest import applied, converge, metric, node_urls, set_delays
from tests.support.http import POOL, ask, get, post
from tests.support.load import Writers
from tests.support.until import until

REPLICA, OTHER = "lab14-replica1", "lab14-replica2"
DOWN_SECONDS = 6
DISK_BYTES = 64 * 2**20


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with a short log and short delay lines, on disks that are soon full."""
    directory = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch, disk(directory / "log"), disk(directory / "replicas" / REPLICA):
        patch.setenv("LAB_LOG_KEEP", "50")
        patch.setenv("LAB_LINE_MAX_ENTRIES", "100")
        with Lab(Options(data_dir=directory, base_port=free_base_port(SystemRandom()))) as running:
            yield running


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """A small file system of its own, where this machine lets us make one."""
    path.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(path)], capture_output=True, check=False
    )
    try:
        yield
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(path)], check=True)


@contextmanager
def full(path: Path) -> Iterator[None]:
    """No byte is left on the disk."""
    if not path.is_mount():
        assert "CI" not in os.environ, "disks of their own are part of what CI has to show"
        pytest.skip("needs the right to mount a file system")
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    try:
        yield
    finally:
        ballast.unlink()


@pytest.fixture
def quick(fresh: Lab) -> Lab:
    """Short delays."""
    set_delays(fresh, 20, 50)
    return fresh


def log_of(lab: Lab, node: str) -> str:
    return (lab.data_dir / "logs" / f"{node}.log").read_text()


def resyncs(lab: Lab, reason: str, replica: str = REPLICA) -> float:
    return metric(lab.replica_urls[replica], "ec_resyncs_total").get(f'{{reason="{reason}",replica="{replica}"}}', 0)


def fill(lab: Lab, count: int, prefix: str = "k") -> list[dict[str, Any]]:
    return [post(f"{lab.primary_url}/data", {"key": f"{prefix}{n % 40}", "value": n}) for n in range(count)]


def status(lab: Lab, replica: str = REPLICA) -> dict[str, Any]:
    found = get(f"{lab.client_url}/status")["replicas"]
    return next(one for one in found if one["replica_id"] == replica)


def told(lab: Lab, kind: str) -> list[dict[str, str]]:
    found = Events(connect(lab.redis_url)).after("0-0", 1, 10_000)
    return [event.fields for event in found if event.fields["kind"] == kind]


def kill(lab: Lab, *nodes: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Stop processes where they are, do something, kill them, and wait until they have been started again."""
    pids = {node: lab.pids[node] for node in nodes}
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
        for child in (Path(f"/proc/{pid}/task/{pid}/children").read_text()).split():
            os.kill(int(child), signal.SIGSTOP)
    meanwhile()
    for pid in pids.values():
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
        for child in children:
            os.kill(int(child), signal.SIGKILL)
    until(lambda: all(lab.pids.get(node) not in {None, pid} for node, pid in pids.items()), 20)


def all_there(lab: Lab, load: Writers) -> None:
    """Every acknowledged write is there once, and every node holds the same."""
    assert not load.gave_up
    found = converge(lab, 60)
    acknowledged = sorted(written["version"] for written in load.acknowledged)
    assert acknowledged == list(range(1, found["primary"]["version"] + 1))
    newest = {written["key"]: written["value"] for written in sorted(load.acknowledged, key=lambda w: w["version"])}
    for url in node_urls(lab):
        assert get(f"{url}/data")["data"] == newest


def test_a_log_trimmed_past_a_replica_that_was_away_leads_to_a_snapshot(quick: Lab) -> None:
    fill(quick, 10)
    converge(quick)
    before = resyncs(quick, "gap")
    url = quick.replica_urls[REPLICA]
    post(f"{quick.client_url}/faults", {"replica": REPLICA, "fault": "partition"})
    until(
        lambda: (
            not next(r for r in get(f"{quick.primary_url}/replicas")["replicas"] if r["replica_id"] == REPLICA)["live"]
        ),
        15,
    )
    last = fill(quick, 200, "later")[-1]
    until(lambda: connect(quick.redis_url).xlen("lab14:log") <= 60, 15)
    set_delays(quick, 3000, 50)
    assert get(f"{url}/version")["version"] == 10
    ask("DELETE", f"{quick.client_url}/faults/{REPLICA}")
    marked = until(lambda: (found := POOL.request("GET", f"{url}/data/k0")).headers.get("Lab-Resyncing") and found, 15)
    assert (marked.headers["Lab-Resyncing"], marked.headers["Lab-Position"].split("-")[1]) == ("gap", "10")
    until(lambda: status(quick)["resyncing"] == "gap")
    assert get(f"{url}/version?min_position={last['position']}&timeout_ms=10000")["reached"]
    converge(quick)
    assert resyncs(quick, "gap") == before + 1
    assert "Lab-Resyncing" not in POOL.request("GET", f"{url}/data/k0").headers
    assert "taking a snapshot" in log_of(quick, REPLICA)


def damage(kind: str, path: Path) -> None:
    """Make something of the store's file that is no store."""
    file = path / "store.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for name in ("store.sqlite-wal", "store.sqlite-shm"):
        (path / name).unlink(missing_ok=True)
    if kind == "missing":
        file.unlink()
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "truncated":
        file.write_bytes(file.read_bytes()[:5000])
    elif kind == "of another version":
        with closing(sqlite3.connect(file)) as db:
            db.execute("PRAGMA user_version = 99")
    else:
        content = bytearray(file.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        file.write_bytes(content)


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "of another version", "corrupt"])
def test_a_store_that_is_none_is_set_aside_and_begun_anew(quick: Lab, kind: str) -> None:
    fill(quick, 80)
    converge(quick)
    until(lambda: connect(quick.redis_url).xlen("lab14:log") <= 60, 15)
    said = log_of(quick, REPLICA)
    kill(quick, REPLICA, meanwhile=lambda: damage(kind, quick.data_dir / "replicas" / REPLICA))
    fill(quick, 5, "later")
    converge(quick, 30)
    new = log_of(quick, REPLICA)[len(said) :]
    if kind not in {"missing", "empty"}:
        assert "is set aside as store.sqlite.set-aside, and the store begins anew" in new
    assert "is new, and the store is empty" in new
    assert resyncs(quick, "gap") == 1  # this process has counted since it began


def epoch_of(lab: Lab) -> int:
    """The primary's epoch; 0 while it does not say."""
    try:
        return int(ask("GET", f"{lab.primary_url}/version")[1].get("epoch", 0))
    except urllib3.exceptions.HTTPError:
        return 0


def copy_of_the_log(lab: Lab, directory: Path) -> None:
    shutil.copytree(lab.data_dir / "log", directory, dirs_exist_ok=True)


def put_back(lab: Lab, directory: Path | None) -> None:
    for path in (lab.data_dir / "log").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if directory is not None:
        shutil.copytree(directory, lab.data_dir / "log", dirs_exist_ok=True)


@pytest.mark.parametrize("primary_too", [False, True])
def test_a_log_rolled_back_goes_on_in_a_new_epoch_and_no_position_names_two_changes(
    quick: Lab, tmp_path: Path, primary_too: bool
) -> None:
    fill(quick, 20)
    converge(quick)
    epoch = get(f"{quick.primary_url}/version")["epoch"]
    copy_of_the_log(quick, tmp_path)
    victims = [LOG_SERVER, "lab14-primary"] if primary_too else [LOG_SERVER]
    with Writers(quick.primary_url, count=4, rate=200, keys=20) as load:
        until(lambda: len(load.acknowledged) > 30)
        until(lambda: all(get(f"{url}/version")["version"] > 40 for url in quick.replica_urls.values()))
        kill(quick, *victims, meanwhile=lambda: put_back(quick, tmp_path))
        mark = len(load.acknowledged)
        until(lambda: len(load.acknowledged) > mark + 50, 40)
    found = converge(quick, 30)
    assert found["primary"]["epoch"] == epoch + 1
    kept = [written for written in load.acknowledged if written["position"].startswith(f"{epoch + 1}-")]
    assert len(kept) >= 50
    assert sorted(written["version"] for written in kept) == list(range(21, found["primary"]["version"] + 1))
    by_position: dict[str, set[str]] = {}
    for written in load.acknowledged:
        by_position.setdefault(written["position"], set()).add(written["write_id"])
    assert all(len(write_ids) == 1 for write_ids in by_position.values())
    event = told(quick, "epoch")[-1]
    assert event["position"] == f"{epoch + 1}-20"
    assert event["after"] == f"{epoch}-20"
    for replica in quick.replica_urls:
        until(lambda replica=replica: resyncs(quick, "log_rolled_back", replica) >= 1)
    assert "goes on at" in log_of(quick, "lab14-primary")


def test_a_log_that_is_lost_with_everything_that_the_primary_knew_begins_in_a_later_epoch(quick: Lab) -> None:
    fill(quick, 20)
    converge(quick)
    epoch = get(f"{quick.primary_url}/version")["epoch"]
    kill(quick, LOG_SERVER, "lab14-primary", meanwhile=lambda: put_back(quick, None))
    until(lambda: epoch_of(quick) > epoch, 20)
    written = fill(quick, 5)[-1]
    found = converge(quick, 30)
    assert found["primary"]["position"] == written["position"]
    assert get(f"{quick.replica_urls[REPLICA]}/data")["data"] == {f"k{n}": n for n in range(5)}


def test_a_log_server_that_is_down_for_long_is_waited_for(quick: Lab) -> None:
    away = quick.data_dir / "elsewhere"
    with Writers(quick.primary_url, count=2, rate=100, keys=20) as load:
        until(lambda: len(load.acknowledged) > 20)
        pid = quick.pids[LOG_SERVER]
        os.kill(pid, signal.SIGSTOP)
        shutil.copytree(quick.data_dir / "log", away)
        put_back(quick, None)
        (quick.data_dir / "log" / "appendonlydir").write_text("in the way, so that it cannot start\n")
        os.kill(pid, signal.SIGKILL)
        began = until(lambda: log_of(quick, LOG_SERVER).count("appendonlydir") and os.times().elapsed, 20)
        until(lambda: os.times().elapsed > began + DOWN_SECONDS, DOWN_SECONDS + 5)
        for url in quick.replica_urls.values():
            assert get(f"{url}/data")["data"]
        assert ask("POST", f"{quick.primary_url}/data", {"key": "k", "value": 1})[0] == 503
        (quick.data_dir / "log" / "appendonlydir").unlink()
        shutil.copytree(away, quick.data_dir / "log", dirs_exist_ok=True)
        mark = len(load.acknowledged)
        until(lambda: len(load.acknowledged) > mark + 20, 30)
    shutil.rmtree(away)
    all_there(quick, load)


def test_a_log_server_that_hangs_is_waited_for(quick: Lab) -> None:
    with Writers(quick.primary_url, count=2, rate=100, keys=20) as load:
        until(lambda: len(load.acknowledged) > 20)
        os.kill(quick.pids[LOG_SERVER], signal.SIGSTOP)
        refused = POOL.request("POST", f"{quick.primary_url}/data", body=b'{"key":"k","value":1}')
        assert (refused.status, refused.json()["outcome"]) == (503, "unknown")
        for url in quick.replica_urls.values():
            until(lambda url=url: ask("GET", f"{url}/health")[0] == 503, 20)
            assert get(f"{url}/data")["data"]
        os.kill(quick.pids[LOG_SERVER], signal.SIGCONT)
        mark = len(load.acknowledged)
        until(lambda: len(load.acknowledged) > mark + 20, 30)
    found = converge(quick, 30)
    # The one above may or may not be there, and nothing else.
    assert found["primary"]["version"] - len(load.acknowledged) in {0, 1}


def test_a_replica_whose_disk_is_full_goes_on_where_it_was(quick: Lab) -> None:
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


def test_a_log_server_whose_disk_is_full_refuses_writes_and_goes_on(quick: Lab) -> None:
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


def test_a_second_process_on_a_store_is_refused_and_the_first_goes_on(quick: Lab) -> None:
    environment = {
        **os.environ,
        "LAB_NODE_ID": "lab14-second",
        "LAB_PORT": str(quick.options.base_port + 70),
        "LAB_REDIS_URL": quick.redis_url,
        "LAB_DATA_DIR": str(quick.data_dir / "replicas" / REPLICA),
    }
    done = subprocess.run(
        [sys.executable, "-m", "nodes", "replica"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "is in use by another process" in done.stderr
    assert "Traceback" not in done.stderr
    fill(quick, 3)
    converge(quick)


@pytest.mark.parametrize("skew_ms", [3_600_000, -3_600_000])
def test_a_clock_that_steps_by_an_hour_and_back_leaves_no_trace(quick: Lab, skew_ms: int) -> None:
    url = quick.replica_urls[REPLICA]
    set_delays(quick, 2000, 50)
    with Writers(quick.primary_url, count=2, rate=100, keys=20) as load:
        post(f"{quick.client_url}/faults", {"replica": REPLICA, "fault": "skew", "skew_ms": skew_ms})
        set_delays(quick, 1000, 50)
        set_delays(quick, 2000, 50)
        target = until(lambda: load.acknowledged and load.acknowledged[-1]["position"])
        reached = get(f"{url}/version?min_position={target}&timeout_ms=3000")["reached"]
        assert reached is (skew_ms > 0)
        ask("DELETE", f"{quick.client_url}/faults/{REPLICA}")
        target = load.acknowledged[-1]["position"]
        assert get(f"{url}/version?min_position={target}&timeout_ms=5000")["reached"]
    all_there(quick, load)
    until(lambda: _registered(quick)["pending"] == 0)
    written = post(f"{quick.client_url}/write-and-wait", {"key": "on-time", "value": 1})
    assert written["replicas"][REPLICA]["applied_after_ms"] >= 2000


def test_what_does_not_fit_into_the_delay_line_stays_in_the_log(quick: Lab) -> None:
    set_delays(quick, 60_000, 50)
    fill(quick, 40)
    with Writers(quick.primary_url, count=4, rate=400, keys=20) as load:
        until(lambda: len(load.acknowledged) > 260)
    found = until(lambda: (r := _registered(quick))["pending"] >= 100 and r)
    assert found["pending"] <= 101
    assert found["undelivered"] >= 200
    set_delays(quick, 0, 50)
    converge(quick)
    entries = applied(quick.replica_urls[REPLICA])[-250:]
    numbers = [int(entry["position"].split("-")[1]) for entry in entries]
    assert numbers == list(range(numbers[0], numbers[0] + 250))
    assert _registered(quick)["undelivered"] == 0


def _registered(lab: Lab) -> dict[str, Any]:
    found: list[dict[str, Any]] = get(f"{lab.primary_url}/replicas")["replicas"]
    return next(one for one in found if one["replica_id"] == REPLICA)
