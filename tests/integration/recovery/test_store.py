"""A replica that lost its place in the log, its store, or the store's lock recovers automatically."""

import os
import subprocess
import sys
from pathlib import Path

from broker.connection import connect
from lab.local.supervisor import Lab
from tests.integration.conftest import converge, set_delays
from tests.integration.recovery.conftest import REPLICA, fill, kill, log_of, registered, resyncs, status
from tests.support.damage import DAMAGES, change
from tests.support.http import POOL, get, post
from tests.support.until import until


def test_a_log_trimmed_past_a_replica_that_was_away_leads_to_a_snapshot(quick: Lab) -> None:
    fill(quick, 10)
    converge(quick)
    before = resyncs(quick, "gap")
    url, other_url = quick.replica_urls.values()
    set_delays(quick, 60_000, 50)  # long enough to observe the waiting snapshot on a busy machine
    probe = fill(quick, 1, "probe")[-1]
    assert get(f"{other_url}/version?min_position={probe['position']}&timeout_ms=20000")["reached"]
    post(f"{quick.client_url}/faults", {"replica": REPLICA, "fault": "partition"})
    until(lambda: not registered(quick)["live"], 15)
    fill(quick, 200, "later")
    until(lambda: connect(quick.redis_url).xlen("lab14:log") <= 60, 15)
    last = fill(quick, 1, "last")[-1]
    assert get(f"{url}/version")["version"] == 10
    post(f"{quick.client_url}/faults/reset")
    marked = until(lambda: (found := POOL.request("GET", f"{url}/data/k0")).headers.get("Lab-Resyncing") and found, 30)
    assert (marked.headers["Lab-Resyncing"], marked.headers["Lab-Position"].split("-")[1]) == ("gap", "10")
    until(lambda: status(quick)["resyncing"] == "gap")
    set_delays(quick, 20, 50)
    assert get(f"{url}/version?min_position={last['position']}&timeout_ms=20000")["reached"]
    converge(quick)
    assert resyncs(quick, "gap") == before + 1
    assert "Lab-Resyncing" not in POOL.request("GET", f"{url}/data/k0").headers
    assert "taking a snapshot" in log_of(quick, REPLICA)


def corrupt(file: Path) -> None:
    change(file, "PRAGMA wal_checkpoint(TRUNCATE)")
    for name in ("store.sqlite-wal", "store.sqlite-shm"):
        file.with_name(name).unlink(missing_ok=True)
    DAMAGES["corrupt"](file)


def test_a_corrupt_store_is_quarantined_and_starts_over(quick: Lab) -> None:
    fill(quick, 80)
    converge(quick)
    until(lambda: connect(quick.redis_url).xlen("lab14:log") <= 60, 15)
    said = log_of(quick, REPLICA)
    kill(quick, REPLICA, meanwhile=lambda: corrupt(quick.data_dir / "replicas" / REPLICA / "store.sqlite"))
    fill(quick, 5, "later")
    converge(quick, 30)
    new = log_of(quick, REPLICA)[len(said) :]
    assert "is quarantined as store.sqlite.quarantined, and the store starts over" in new
    assert "is new, and the store is empty" in new
    assert resyncs(quick, "gap") == 1  # counted since the start of this process


def test_a_second_process_on_a_store_is_refused_and_the_first_continues(quick: Lab) -> None:
    environment = os.environ | {
        "LAB_NODE_ID": "lab14-second",
        "LAB_PORT": str(quick.options.base_port + 70),
        "LAB_REDIS_URL": quick.redis_url,
        "LAB_DATA_DIR": str(quick.data_dir / "replicas" / REPLICA),
    }
    command = [sys.executable, "-m", "nodes", "replica"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "is in use by another process" in done.stderr
    assert "Traceback" not in done.stderr
    fill(quick, 3)
    converge(quick)
