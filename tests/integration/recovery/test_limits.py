"""A log server whose clock is set back, and one without memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from broker.connection import connect
from lab.local.supervisor import Lab
from tests.integration.conftest import converge, metric, node_urls, set_delays
from tests.integration.recovery.conftest import REPLICA, log_of, registered
from tests.support.http import ask, get, post
from tests.support.until import until


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
