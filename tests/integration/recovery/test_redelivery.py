"""A replica killed between apply and acknowledgement gets its entries again, and applies none of them twice."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import urllib3

from broker.connection import connect
from lab.local.supervisor import Lab
from tests.integration.conftest import applied, converge, metric, running_lab, wait_for_settings
from tests.integration.recovery.conftest import REPLICA, kill
from tests.support.figures import spread
from tests.support.http import get, post
from tests.support.until import until

KILLS = 2
ENTRIES = 100
HELD_MS = 60_000  # longer than a restart on a busy machine
APPLIED_MIN = 20  # of each 100 entries, at the kill


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose log keeps all entries, and that restarts a process as if it had not just ended several times."""
    with running_lab(tmp_path_factory.mktemp("redelivery"), restart_pauses_seconds=(0.1,)) as running:
        yield running


def set_ack(lab: Lab, ack_delay_ms: float) -> None:
    post(f"{lab.primary_url}/admin/replication-delay", {"replica": REPLICA, "ack_delay_ms": ack_delay_ms})
    wait_for_settings(lab)


def write_many(lab: Lab, prefix: str) -> list[str]:
    """Write the entries in one batch; return their positions."""
    found = post(f"{lab.primary_url}/data/batch", [{"key": f"{prefix}-{n % 40}", "value": n} for n in range(ENTRIES)])
    assert found["acknowledged"] == ENTRIES, found
    version = get(f"{lab.primary_url}/version")
    return [f"{version['epoch']}-{n}" for n in range(version["version"] - ENTRIES + 1, version["version"] + 1)]


def positions(lab: Lab, after: str) -> list[str]:
    """Return what the replica's present process has applied after a position, in its order."""
    return [entry["position"] for entry in applied(lab.replica_urls[REPLICA], after)]


def deliveries(lab: Lab) -> dict[str, int]:
    """Return the delivery count of every pending entry, as ``XPENDING lab14:log lab14-replica1 IDLE 0 - +`` reports."""
    found: Any = connect(lab.redis_url).xpending_range("lab14:log", REPLICA, "-", "+", 10_000, idle=0)
    return {entry["message_id"]: entry["times_delivered"] for entry in found}


def stored(lab: Lab) -> str:
    """Return the position in the replica's store, read from its file."""
    file = lab.data_dir / "replicas" / REPLICA / "store.sqlite"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        epoch, version = db.execute("SELECT epoch, version FROM state").fetchone()
    return f"{epoch}-{version}"


def answers(lab: Lab, path: str) -> dict[str, Any] | None:
    try:
        return get(f"{lab.replica_urls[REPLICA]}{path}")
    except (urllib3.exceptions.HTTPError, AssertionError):
        return None


def counted(lab: Lab) -> dict[str, float]:
    """Return the counters of the replica's present process."""
    url = lab.replica_urls[REPLICA]
    results = metric(url, "ec_applied_total")
    found = {name: results[f'{{replica="{REPLICA}",result="{name}"}}'] for name in ("applied", "duplicate")}
    return found | {"redelivered": metric(url, "ec_redeliveries_total")[f'{{replica="{REPLICA}"}}']}


def hold_and_kill(lab: Lab, number: int) -> tuple[dict[str, float], float]:
    """Kill the replica with entries held back; return its counters and its recovery time."""
    start = get(f"{lab.primary_url}/version")["position"]
    set_ack(lab, HELD_MS)
    post(f"{lab.client_url}/faults", {"replica": REPLICA, "fault": "slow_apply", "entries_per_second": 200})
    written = write_many(lab, f"kill{number}")
    until(lambda: len(positions(lab, start)) >= APPLIED_MIN)
    assert until(lambda: len(found := deliveries(lab)) == ENTRIES and found) == dict.fromkeys(written, 1)
    before = positions(lab, start)
    held: list[str] = []
    kill(lab, REPLICA, meanwhile=lambda: held.append(stored(lab)))
    killed_at = time.monotonic()
    until(lambda: answers(lab, f"/version?min_position={written[-1]}&timeout_ms=10000"), 20)
    restarted_ms = (time.monotonic() - killed_at) * 1000
    again = positions(lab, "0-0")
    kept = ENTRIES - len(again)
    # A commit whose last frame was just written is in the store only after its recovery.
    assert len(before) <= kept
    assert kept - (written.index(held[0]) + 1) in {0, 1}
    assert before == written[: len(before)], "each once, in log order"
    assert again == written[kept:], "only what the store did not have"
    until(lambda: counted(lab)["redelivered"] == ENTRIES)
    assert counted(lab) == {"redelivered": ENTRIES, "duplicate": kept, "applied": ENTRIES - kept}
    assert deliveries(lab) == dict.fromkeys(written, 2)
    set_ack(lab, 0)
    until(lambda: not deliveries(lab))
    assert converge(lab)["analysis"]["digests_equal"]
    return counted(lab), restarted_ms


def test_a_kill_before_the_acknowledgement_leads_to_redelivery_and_to_no_second_apply(quick: Lab) -> None:
    found = [hold_and_kill(quick, number) for number in range(KILLS)]
    total = {name: sum(counters[name] for counters, _ in found) for name in ("redelivered", "duplicate", "applied")}
    print(f"{KILLS} kills, {ENTRIES} entries held back at each: {total}")
    print(spread("from the restart of the process until it has all entries, ms", [ms for _, ms in found]))
    assert (total["redelivered"], total["duplicate"] + total["applied"]) == (KILLS * ENTRIES, KILLS * ENTRIES)
    assert total["applied"] > 0
