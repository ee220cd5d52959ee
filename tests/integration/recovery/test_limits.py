"""A clock that steps, and a delay line that is full."""

from __future__ import annotations

import pytest

from lab.runner import Lab
from tests.integration.conftest import applied, converge, set_delays
from tests.integration.recovery.conftest import REPLICA, all_there, fill, registered
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


def test_what_does_not_fit_into_the_delay_line_stays_in_the_log(quick: Lab) -> None:
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
