"""A log server that loses its log, or a part of it: surviving acknowledged writes are kept."""

import shutil
from pathlib import Path

import pytest
import urllib3

from lab.errors import LabError
from lab.local.layout import LOG_SERVER, Options
from lab.local.log_server import DROPPED
from lab.local.supervisor import Lab
from tests.integration.conftest import converge
from tests.integration.recovery.conftest import REPLICA, fill, kill, log_of, resyncs, told
from tests.support.http import ask, get
from tests.support.load import Writers
from tests.support.ports import base_port
from tests.support.until import until


def epoch_of(lab: Lab) -> int:
    """The primary's epoch; 0 while it is not reported."""
    try:
        return int(ask("GET", f"{lab.primary_url}/version")[1].get("epoch", 0))
    except urllib3.exceptions.HTTPError:
        return 0


def restore(lab: Lab, directory: Path | None) -> None:
    for path in (lab.data_dir / "log").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if directory is not None:
        shutil.copytree(directory, lab.data_dir / "log", dirs_exist_ok=True)


def test_a_log_rolled_back_continues_in_a_new_epoch(quick: Lab, tmp_path: Path) -> None:
    fill(quick, 20)
    epoch = converge(quick)["primary"]["epoch"]
    shutil.copytree(quick.data_dir / "log", tmp_path, dirs_exist_ok=True)
    with Writers(quick.primary_url, count=4, rate=200, keys=20) as load:
        until(lambda: len(load.acknowledged) > 30)
        until(lambda: all(get(f"{url}/version")["version"] > 40 for url in quick.replica_urls.values()))
        kill(quick, LOG_SERVER, meanwhile=lambda: restore(quick, tmp_path))
        mark = len(load.acknowledged)
        until(lambda: len(load.acknowledged) > mark + 50, 40)
    found = converge(quick, 30)
    assert found["primary"]["epoch"] == epoch + 1
    kept = [written for written in load.acknowledged if written["position"].startswith(f"{epoch + 1}-")]
    assert len(kept) >= 50
    versions = sorted(written["version"] for written in kept)
    assert versions == list(range(versions[0], found["primary"]["version"] + 1))
    assert versions[0] <= 21, "the copy has 20 versions, or fewer where the disk was busy"
    named = {(written["position"], written["write_id"]) for written in load.acknowledged}
    assert len({position for position, _ in named}) == len(named), "no position names two changes"
    event = told(quick, "epoch")[-1]
    assert (event["position"], event["after"]) == (f"{epoch + 1}-20", f"{epoch}-20")
    for replica in quick.replica_urls:
        until(lambda replica=replica: resyncs(quick, "log_rolled_back", replica) >= 1)
    assert "continues at" in log_of(quick, "lab14-primary")


def test_a_log_file_with_a_damaged_end_is_repaired_and_continues_in_a_new_epoch(quick: Lab) -> None:
    fill(quick, 20)
    epoch = converge(quick)["primary"]["epoch"]

    def damage() -> None:
        newest = max((quick.data_dir / "log").glob("appendonlydir/*.incr.aof"), key=lambda file: file.stat().st_mtime)
        with newest.open("ab") as file:
            file.write(b"rotten\r\n" * 20)

    kill(quick, LOG_SERVER, meanwhile=damage)
    until(lambda: epoch_of(quick) > epoch, 20)
    assert (quick.data_dir / "log" / DROPPED).stat().st_size >= 100
    assert told(quick, "epoch")[-1]["position"].startswith(f"{epoch + 1}-")
    fill(quick, 5)
    converge(quick, 30)


def test_a_log_damaged_beyond_repair_is_a_one_line_error(tmp_path: Path) -> None:
    log = tmp_path / "log" / "appendonlydir"
    log.mkdir(parents=True)
    (log / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.1.incr.aof seq 1 type i\nfile appendonly.aof.2.incr.aof seq 2 type i\n"
    )
    (log / "appendonly.aof.1.incr.aof").write_text("rotten")
    (log / "appendonly.aof.2.incr.aof").write_text("")
    lab = Lab(Options(data_dir=tmp_path, base_port=base_port(), replicas=1))
    with pytest.raises(LabError, match=r"damaged beyond repair; replace .*log with a backup"):
        lab.start()
    (log / "appendonly.aof.2.incr.aof").unlink()
    (log / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    said: list[str] = []
    with Lab(lab.options, said.append) as running:
        assert get(f"{running.primary_url}/version")["version"] == 0
    assert "its last 6 bytes were dropped" in said[0]


def test_a_log_lost_together_with_the_primarys_state_starts_in_a_later_epoch(quick: Lab) -> None:
    fill(quick, 20)
    epoch = converge(quick)["primary"]["epoch"]
    kill(quick, LOG_SERVER, "lab14-primary", meanwhile=lambda: restore(quick, None))
    until(lambda: epoch_of(quick) > epoch, 20)
    written = fill(quick, 5)[-1]
    found = converge(quick, 30)
    assert found["primary"]["position"] == written["position"]
    assert get(f"{quick.replica_urls[REPLICA]}/data")["data"] == {f"k{n}": n for n in range(5)}
