"""A stepping clock, a full delay line, and a full log server."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.connection import connect
from lab.local.supervisor import Lab
from tests.integration.conftest import applied, converge, metric, node_urls, set_delays
from tests.integration.recovery.conftest import REPLICA, all_there, fill, log_of, registered
from tests.support.http import ask, get, post
from tests.support.load import Writers
from tests.support.until import until


@pytest.mark.parametrize("skew_ms", [3_600_000, -3_600_000])
def test_a_clock_that_steps_by_an_hour_and_back_leaves_no_trace(quick: Lab, skew_ms: int) -> None:
    url = quick.replica_urls[REPLICA]
    set_delays(quick, 1000, 50)
    with Writers(quick.primary_url, count=2, rate=100, keys=20) as load:
        post(f"{quick.client_url}/faults", {"replica": REPLICA, "fault": "skew", "skew_ms": skew_ms})
        set_delays(quick, 500, 50)
        set_delays(quick, 1000, 50)
        target = until(lambda: load.acknowledged and load.acknowledged[-1]["position"])
        reached = get(f"{url}/version?min_position={target}&timeout_ms=2000")["reached"]
        assert reached is (skew_ms > 0)
        ask("DELETE", f"{quick.client_url}/faults/{REPLICA}")
        target = load.acknowledged[-1]["position"]
        assert get(f"{url}/version?min_position={target}&timeout_ms=20000")["reached"]
    all_there(quick, load)
    until(lambda: registered(quick)["pending"] == 0)
    written = post(f"{quick.client_url}/write-and-wait", {"key": "on-time", "value": 1})
    assert written["replicas"][REPLICA]["applied_after_ms"] >= 1000


def test_entries_beyond_the_delay_line_stay_in_the_log(quick: Lab) -> None:
    set_delays(quick, 60_000, 50)
    fill(quick, 40)
    with Writers(quick.primary_url, count=4, rate=400, keys=20) as load:
        until(lambda: len(load.acknowledged) > 260)
    found = until(lambda: (r := registered(quick))["pending"] >= 100 and r)
    assert found["pending"] <= 101
    assert found["undelivered"] >= 200
    set_delays(quick, 0, 50)
    converge(quick)
    entries = applied(quick.replica_urls[REPLICA])[-250:]
    numbers = [int(entry["position"].split("-")[1]) for entry in entries]
    assert numbers == list(range(numbers[0], numbers[0] + 250))
    assert registered(quick)["undelivered"] == 0


def test_a_log_server_clock_set_back_by_minutes_delays_nothing(quick: Lab) -> None:
    head = connect(quick.redis_url)
    # As if its clock had been ahead up to now; an hour after its last sign of life a replica would be forgotten.
    head.hincrby("lab14:head", "at", 3_000_000_000)
    until(lambda: int(head.hget("lab14:head", "offset") or 0) > 2_900_000_000, 5)
    set_delays(quick, 200, 300)
    written = post(f"{quick.client_url}/write-and-wait?timeout_ms=20000", {"key": "k", "value": 1})
    assert written["consistency_achieved"]
    assert all(200 <= replica["applied_after_ms"] < 10_000 for replica in written["replicas"].values())
    post(f"{quick.client_url}/faults", {"replica": REPLICA, "fault": "pause", "duration_ms": 60_000})
    post(f"{quick.primary_url}/data", {"key": "k", "value": 2})
    until(lambda: registered(quick)["lag_ms"] > 500, 10)
    post(f"{quick.client_url}/faults/reset")
    converge(quick)


HEAVY = "x" * 200 * 1024


@contextmanager
def little_memory(lab: Lab) -> Iterator[None]:
    """Limit the log server to 8 MB more than it uses."""
    client = connect(lab.redis_url)
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 8 * 10**6)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


def test_the_log_makes_room_for_writes_until_the_store_itself_is_too_large(quick: Lab) -> None:
    url = quick.primary_url
    with little_memory(quick):
        for number in range(100):
            post(f"{url}/data", {"key": f"k{number % 10}", "value": HEAVY})
        assert converge(quick)["primary"]["version"] == 100
        sizes = (metric(url, name)[""] for name in ("ec_log_bytes", "ec_log_max_bytes"))
        print("log: {:.1f} MB of {:.1f} MB".format(*(size / 1e6 for size in sizes)))
        taken = 0
        while ask("POST", f"{url}/data", {"key": f"more{taken}", "value": HEAVY})[0] == 200:
            taken += 1
            assert taken < 40
        health = until(lambda: (found := ask("GET", f"{url}/health"))[0] == 503 and found[1], 2)
        assert "maxmemory" in health["checks"]["writes"]
        for node in node_urls(quick):
            assert get(f"{node}/data/k1")["value"] == HEAVY
        assert ask("DELETE", f"{url}/data/more0")[0] == 200
        assert converge(quick)["analysis"]["digests_equal"]
        post(f"{url}/admin/reset")
        until(lambda: ask("GET", f"{url}/health")[0] == 200, 2)
        post(f"{url}/data", {"key": "k", "value": HEAVY})
        converge(quick)
    assert "Traceback" not in log_of(quick, "lab14-primary")
