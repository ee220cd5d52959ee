"""Each fault on a real lab: started, visible where the documents say, ended, and followed by equal digests."""

import subprocess
import sys
import time
from typing import Any

import pytest

from broker.connection import connect
from broker.registry import Events
from broker.stats import quantile
from lab.local.supervisor import Lab
from nodes.replica.faults import FAULTS
from tests.integration.conftest import applied, converge, set_delays
from tests.support.figures import spread
from tests.support.http import POOL, ask, get, post
from tests.support.load import Writers
from tests.support.until import until

REPLICA, OTHER = "lab14-replica1", "lab14-replica2"
PARTITION_WRITES = 300


def start(lab: Lab, fault: str, **parameters: Any) -> dict[str, Any]:
    return post(f"{lab.client_url}/faults", {"replica": REPLICA, "fault": fault, **parameters})


def end(lab: Lab, fault: str) -> None:
    status, found = ask("DELETE", f"{lab.client_url}/faults/{REPLICA}/{fault}")
    assert (status, found["ended"]) == (200, [fault]), found


def status(lab: Lab, replica: str = REPLICA) -> dict[str, Any]:
    found = get(f"{lab.client_url}/status")["replicas"]
    return next(one for one in found if one["replica_id"] == replica)


def registered(lab: Lab) -> dict[str, Any]:
    found = get(f"{lab.primary_url}/replicas")["replicas"]
    return next(one for one in found if one["replica_id"] == REPLICA)


def metric(lab: Lab, sample: str) -> float:
    text = POOL.request("GET", f"{lab.replica_urls[REPLICA]}/metrics").data.decode()
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(sample)), 0.0)


def active(lab: Lab, fault: str) -> float:
    return metric(lab, f'ec_fault_active{{fault="{fault}",replica="{REPLICA}"}}')


def write(lab: Lab, count: int, prefix: str = "k") -> dict[str, Any]:
    return [post(f"{lab.primary_url}/data", {"key": f"{prefix}{n}", "value": n}) for n in range(count)][-1]


def events(lab: Lab, fault: str) -> list[str]:
    """The kinds of events of a fault, in order."""
    found = Events(connect(lab.redis_url)).after("0-0", 1, 10_000)
    return [event.fields["kind"] for event in found if event.fields.get("fault") == fault]


def is_reported(lab: Lab, fault: str, before: list[str]) -> None:
    assert events(lab, fault)[len(before) :] == ["fault", "fault_ended"]
    assert active(lab, fault) == 0


def test_pause_lets_entries_wait_and_then_applies_them_all(fresh: Lab) -> None:
    before = events(fresh, "pause")
    start(fresh, "pause")
    assert active(fresh, "pause") == 1
    write(fresh, 5)
    until(lambda: status(fresh, OTHER)["is_consistent"])
    until(lambda: status(fresh)["faults"] == ["pause"])
    assert (status(fresh)["version_behind"], registered(fresh)["pending"]) == (5, 5)
    assert status(fresh)["lag_ms"] > 0
    end(fresh, "pause")
    converge(fresh)
    is_reported(fresh, "pause", before)


def test_partition_cuts_a_replica_off_but_it_still_answers_reads(fresh: Lab) -> None:
    before = events(fresh, "partition")
    write(fresh, 3)
    converge(fresh)
    start(fresh, "partition")
    written = write(fresh, 3, "later")
    until(lambda: not registered(fresh)["live"], 15)
    assert get(f"{fresh.replica_urls[REPLICA]}/data/k0")["value"] == 0
    assert ask("GET", f"{fresh.replica_urls[REPLICA]}/data/later0")[0] == 404
    assert status(fresh)["version_behind"] == 3
    health = ask("GET", f"{fresh.replica_urls[REPLICA]}/health")
    assert (health[0], "cut" in health[1]["checks"]["log"]) == (503, True)
    end(fresh, "partition")
    url = f"{fresh.replica_urls[REPLICA]}/version?min_position={written['position']}&timeout_ms=10000"
    assert get(url)["reached"]
    converge(fresh)
    is_reported(fresh, "partition", before)
    until(lambda: ask("GET", f"{fresh.replica_urls[REPLICA]}/health")[0] == 200)


@pytest.mark.alone
def test_a_partition_does_not_slow_the_others_and_the_replica_catches_up(fresh: Lab) -> None:
    """Compare the other replica's lateness and the duration of writes before and during it."""
    late: list[list[float]] = []
    took: list[list[float]] = []
    with Writers(fresh.primary_url, count=8, rate=300, keys=50) as load:
        for partitioned in (False, True):
            if partitioned:
                start(fresh, "partition")
            since = get(f"{fresh.primary_url}/version")["position"]
            mark = len(load.took_ms)
            until(lambda mark=mark: len(load.took_ms) >= mark + PARTITION_WRITES, 30)
            late.append([entry["lateness_ms"] for entry in applied(fresh.replica_urls[OTHER], after=since)])
            took.append(load.took_ms[mark:])
        head = get(f"{fresh.primary_url}/version")
        behind = status(fresh)["version_behind"]
        end(fresh, "partition")
        started = time.monotonic()
        url = f"{fresh.replica_urls[REPLICA]}/version?min_position={head['position']}&timeout_ms=20000"
        assert get(url)["reached"]
        caught_up_seconds = time.monotonic() - started
    for name, (before, meanwhile) in (("lateness of the other replica", late), ("a write", took)):
        print(spread(f"{name}, ms, before", before))
        print(spread(f"{name}, ms, meanwhile", meanwhile))
        assert quantile(meanwhile, 0.5) <= 5 * quantile(before, 0.5) + 50
    print(f"{behind} versions behind, caught up with in {caught_up_seconds:.2f} s")
    assert behind >= PARTITION_WRITES
    converge(fresh)


def test_crash_ends_the_process_and_it_is_restarted(fresh: Lab) -> None:
    pid = fresh.pids[REPLICA]
    with Writers(fresh.primary_url, count=2, rate=100, keys=20) as load:
        start(fresh, "crash")
        until(lambda: fresh.pids.get(REPLICA) not in {None, pid}, 20)
        seen = len(load.acknowledged)
        until(lambda: len(load.acknowledged) > seen + 50)
    converge(fresh)
    assert events(fresh, "crash")[-1] == "fault"


def test_slow_apply_is_a_rate_and_the_backlog_grows(fresh: Lab) -> None:
    start(fresh, "slow_apply", entries_per_second=20)
    write(fresh, 40)
    until(lambda: status(fresh, OTHER)["is_consistent"])
    behind = status(fresh)["version_behind"]
    assert behind > 10
    started = time.monotonic()
    until(lambda: status(fresh)["version_behind"] <= behind - 10)
    assert time.monotonic() - started > 0.3  # ten entries at 20 a second, polled
    end(fresh, "slow_apply")
    converge(fresh)


def test_duplicate_delivers_again_and_nothing_is_applied_twice(fresh: Lab) -> None:
    twice = metric(fresh, "ec_redeliveries_total")
    applied = metric(fresh, f'ec_applied_total{{replica="{REPLICA}",result="applied"}}')
    start(fresh, "duplicate")
    write(fresh, 50)
    converge(fresh)
    until(lambda: metric(fresh, "ec_redeliveries_total") > twice)
    assert metric(fresh, f'ec_applied_total{{replica="{REPLICA}",result="applied"}}') == applied + 50
    end(fresh, "duplicate")


def test_drop_ack_leaves_applied_entries_pending_until_it_ends(fresh: Lab) -> None:
    start(fresh, "drop_ack")
    written = write(fresh, 20)
    converge(fresh)
    assert (written["version"], registered(fresh)["pending"]) == (20, 20)
    end(fresh, "drop_ack")
    write(fresh, 1, "wake")
    until(lambda: registered(fresh)["pending"] == 0, 15)
    converge(fresh)


def test_a_clock_that_is_ahead_applies_before_it_is_due(fresh: Lab) -> None:
    set_delays(fresh, 1000, 20)
    start(fresh, "skew", skew_ms=900)
    found = post(f"{fresh.client_url}/write-and-wait", {"key": "early", "value": 1})
    assert found["replicas"][REPLICA]["observed_after_ms"] < 1000
    end(fresh, "skew")
    found = post(f"{fresh.client_url}/write-and-wait", {"key": "on-time", "value": 1})
    assert found["replicas"][REPLICA]["observed_after_ms"] > 950


def test_a_corrupt_value_is_found_by_its_digest_and_repaired_by_a_resync(fresh: Lab) -> None:
    write(fresh, 10)
    converge(fresh)
    assert not status(fresh)["diverged"]
    start(fresh, "corrupt", key="k3")
    assert get(f"{fresh.replica_urls[REPLICA]}/data/k3")["value"] == "corrupt"
    found = until(lambda: status(fresh)["diverged"] and status(fresh), 30)
    assert (found["version_behind"], found["is_consistent"]) == (0, False)
    assert metric(fresh, "ec_replica_diverged") == 1
    before = metric(fresh, f'ec_resyncs_total{{reason="requested",replica="{REPLICA}"}}')
    post(f"{fresh.client_url}/resync", {"replica": REPLICA})
    until(lambda: not status(fresh)["diverged"], 30)
    assert metric(fresh, f'ec_resyncs_total{{reason="requested",replica="{REPLICA}"}}') == before + 1
    assert get(f"{fresh.replica_urls[REPLICA]}/data/k3")["value"] == 3
    assert converge(fresh)["analysis"]["digests_equal"]


def test_a_fault_ends_after_its_duration_and_all_can_be_ended_at_once(fresh: Lab) -> None:
    found = start(fresh, "pause", duration_ms=300)
    assert found["until"] > found["since"]
    until(lambda: get(f"{fresh.client_url}/faults")["replicas"][REPLICA]["faults"] == [])
    start(fresh, "pause")
    start(fresh, "drop_ack", probability=0.5)
    ended = post(f"{fresh.client_url}/faults/reset", None)["replicas"]
    assert {name: found["ended"] for name, found in ended.items()} == {REPLICA: ["drop_ack", "pause"], OTHER: []}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"fault": "nothing"}, 422),
        ({"fault": "pause", "more": 1}, 422),
        ({"fault": "skew"}, 422),
        ({"fault": "drop_ack", "probability": 2}, 422),
        ({"fault": "pause", "duration_ms": 0}, 422),
        ({"fault": "corrupt", "key": "never written"}, 409),
        ({"fault": "pause", "replica": "unknown"}, 422),
    ],
)
def test_an_invalid_fault_is_rejected_and_not_started(fresh: Lab, body: dict[str, Any], wanted: int) -> None:
    assert ask("POST", f"{fresh.client_url}/faults", {"replica": REPLICA, **body})[0] == wanted
    assert get(f"{fresh.client_url}/faults")["replicas"][REPLICA]["faults"] == []
    assert ask("DELETE", f"{fresh.client_url}/faults/{REPLICA}/pause")[0] == 404


def lab_fault(lab: Lab, *arguments: str) -> str:
    line = [sys.executable, "-m", "lab", "fault", *arguments, "--client-url", lab.client_url]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_starts_shows_and_ends_faults(fresh: Lab) -> None:
    assert "pause on lab14-replica1, until " in lab_fault(fresh, "start", REPLICA, "pause", "duration_ms=60000")
    shown = lab_fault(fresh, "list")
    assert "duration_ms=60000" in shown
    assert ", ".join(sorted(FAULTS)) in shown
    assert lab_fault(fresh, "end", REPLICA, "pause") == "lab14-replica1: pause\n"
    assert "no fault was active" in lab_fault(fresh, "end")
