"""The dashboard's queries and the Prometheus rules, on a real Prometheus that scrapes a real lab."""

from __future__ import annotations

import math
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.local.layout import LOG_SERVER
from lab.local.supervisor import Lab
from tests.integration.conftest import converge, frozen, set_delays
from tests.support.http import POOL, ask, post
from tests.support.load import Writers
from tests.support.prometheus import DASHBOARDS, Prometheus, panels
from tests.support.until import until

pytestmark = [pytest.mark.needs("prometheus"), pytest.mark.xdist_group("prometheus")]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
(BEHIND,) = panels()["Versions behind"]
SECONDS, CONFIGURED = panels()["Seconds behind"]
PENDING, _ = panels()["Pending and undelivered"]
(STATE,) = panels()["State"]
_, UNDELIVERED = panels()["Pending and undelivered"]
(ACTIVE_FAULTS,) = panels()["Active faults"]
(DIVERGED,) = panels()["Diverged"]
REDELIVERED = panels()["Repairs"][0]
WAITING, UNACKNOWLEDGED = panels()["Pending: waiting and applied"]
_, APPLIED, ACKNOWLEDGED = panels()["Applied and acknowledged"]
_, ACKNOWLEDGEMENT_P50, ACKNOWLEDGEMENT_CONFIGURED = panels()["Commit to acknowledgement, p50 and p95"]
STALLED = 'ALERTS{alertname="AcknowledgementsStalled", alertstate="firing"}'
LATENESS_P50 = panels()["Lateness, p50 and p99"][1]
WINDOW_P50 = panels()["Consistency window"][0]
# For each fault: its parameters, a panel's query, and the value that the query must exceed under 50 writes per second.
SHOWS: dict[str, tuple[dict[str, Any], str, float]] = {
    "pause": ({}, SECONDS, 2),
    "partition": ({}, UNDELIVERED, 50),
    "crash": ({}, BEHIND, 10),
    "slow_apply": ({"entries_per_second": 5}, LATENESS_P50, 0.5),
    "duplicate": ({}, REDELIVERED, 5),
    "drop_ack": ({}, UNACKNOWLEDGED, 100),
}


@pytest.fixture
def fresh(fresh: Lab) -> Lab:
    """The lab with delays that are longer than the scrape interval."""
    set_delays(fresh, 250, 500)
    return fresh


@pytest.fixture(scope="module")
def prometheus(shared_lab: Lab) -> Iterator[Prometheus]:
    with Prometheus.of(shared_lab) as running:
        yield running


class Measurers:
    """Repeated write-and-read and write-and-wait requests in the background."""

    def __init__(self, lab: Lab) -> None:
        self._url = lab.client_url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(path,)) for path in ("and-read", "and-wait")]

    def __enter__(self) -> Measurers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, path: str) -> None:
        while not self._stop.wait(0.05):
            post(f"{self._url}/write-{path}", {"key": path, "value": 1})


def wait_for_numbers(prometheus: Prometheus) -> None:
    """Wait until every query of every panel returns numbers; fail with the panel and query that does not."""
    for title, expressions in panels().items():
        for expression in expressions:
            try:
                until(lambda query=expression: is_number(prometheus.query(query)), 20)
            except AssertionError as error:
                raise AssertionError(f"{title}: {expression}") from error


def is_number(samples: list[dict[str, Any]] | None) -> bool:
    return bool(samples) and all(math.isfinite(float(found["value"][1])) for found in samples or [])


def test_rules_pass_their_unit_tests() -> None:
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        line = ["promtool", *command]
        done = subprocess.run(line, cwd=DASHBOARDS / "prometheus", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_on_an_idle_lab_every_query_has_a_number_and_lag_is_0(fresh: Lab, prometheus: Prometheus) -> None:
    post(f"{fresh.client_url}/write-and-wait", {"key": "first", "value": 1})
    wait_for_numbers(prometheus)
    for expression in (BEHIND, SECONDS, PENDING, STATE):
        until(lambda query=expression: prometheus.values(query) == dict.fromkeys(fresh.replica_urls, 0), 20)


def test_under_load_every_query_and_rule_has_numbers(fresh: Lab, prometheus: Prometheus) -> None:
    with Writers(fresh.primary_url, count=2, rate=50, keys=20), Measurers(fresh):
        wait_for_numbers(prometheus)
        stale = panels()["Stale reads, per replica"][0]
        until(lambda: all(ratio > 0.5 for ratio in prometheus.values(stale).values()), 20)
        within = panels()["P(converged ≤ t)"][0]
        until(lambda: prometheus.values(within, "le").get("+Inf") == 1, 20)
        until(lambda: all(healthy(prometheus, kind="recording", samples=True)), 20)
    assert all(healthy(prometheus, kind="alerting", samples=False))


def healthy(prometheus: Prometheus, *, kind: str, samples: bool) -> list[bool]:
    """Return for each rule of a kind whether its evaluation succeeded and, with ``samples``, returned numbers."""
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"] if rule["type"] == kind]
    assert rules
    return [rule["health"] == "ok" and (not samples or is_number(prometheus.query(rule["name"]))) for rule in rules]


def test_under_load_the_lag_is_the_configured_delay(fresh: Lab, prometheus: Prometheus) -> None:
    set_delays(fresh, 500, 3000)
    with Writers(fresh.primary_url, count=2, rate=50, keys=20):
        until(lambda: prometheus.values(SECONDS).get("lab14-replica2", 0) > 2.9, 20)
        median = f"quantile_over_time(0.5, ({SECONDS})[5s:500ms])"
        until(lambda: prometheus.values(median)["lab14-replica2"] == pytest.approx(3.0, abs=0.2), 20)
        print(f"\nseconds behind at 3000 ms, median of 5 s: {prometheus.values(median)}")
        assert prometheus.values(CONFIGURED)["lab14-replica2"] == 3.0
        assert prometheus.values(STATE)["lab14-replica2"] == 1


def test_a_delayed_acknowledgement_shows_between_applied_and_acknowledged(fresh: Lab, prometheus: Prometheus) -> None:
    delayed, other = fresh.replica_urls
    set_ack_delay(fresh, delayed, 2000)
    held = f"({APPLIED}) - on (replica) ({ACKNOWLEDGED})"
    with Writers(fresh.primary_url, count=2, rate=50, keys=20):
        until(lambda: median(prometheus, held).get(delayed) == pytest.approx(100, abs=25), 20)
        until(lambda: median(prometheus, UNACKNOWLEDGED).get(delayed) == pytest.approx(100, abs=25), 20)
        until(lambda: median(prometheus, WAITING).get(delayed) == pytest.approx(12, abs=8), 20)
        # Up to the width of the histogram's bucket.
        until(lambda: prometheus.values(ACKNOWLEDGEMENT_P50).get(delayed) == pytest.approx(2.25, abs=0.3), 20)
        assert prometheus.values(ACKNOWLEDGEMENT_CONFIGURED) == {delayed: 2.25, other: 0.5}
        assert prometheus.values(UNACKNOWLEDGED)[other] < 25
    until(lambda: prometheus.values(UNACKNOWLEDGED) == {delayed: 0, other: 0}, 20)
    assert prometheus.values(APPLIED) == prometheus.values(ACKNOWLEDGED)


def test_a_crash_before_the_acknowledgement_shows_as_redeliveries(fresh: Lab, prometheus: Prometheus) -> None:
    replica, other = fresh.replica_urls
    set_ack_delay(fresh, replica, 3000)
    with Writers(fresh.primary_url, count=2, rate=50, keys=20):
        until(lambda: prometheus.values(UNACKNOWLEDGED).get(replica, 0) > 100, 20)
        post(f"{fresh.client_url}/faults", {"replica": replica, "fault": "crash"})
        for query in panels()["Redeliveries"]:  # each entry once, averaged over 30 s
            until(lambda query=query: 3 < prometheus.values(query).get(replica, 0) < 10, 20)
            assert prometheus.values(query)[other] == 0
    converge(fresh)


@pytest.mark.timeout(120)
def test_lost_acknowledgements_fire_an_alert_and_delayed_ones_do_not(fresh: Lab, prometheus: Prometheus) -> None:
    lossy, delayed = fresh.replica_urls
    set_ack_delay(fresh, delayed, 3000)
    with Writers(fresh.primary_url, count=2, rate=20, keys=20):
        until(lambda: prometheus.values(UNACKNOWLEDGED).get(delayed, 0) > 50, 20)
        post(f"{fresh.client_url}/faults", {"replica": lossy, "fault": "drop_ack"})
        until(lambda: lossy in prometheus.values(STALLED), 60)
    until(lambda: prometheus.values(UNACKNOWLEDGED).get(delayed) == 0, 20)
    assert set(prometheus.values(f"count_over_time({STALLED}[60s])")) == {lossy}
    assert lossy in prometheus.values(STALLED)
    ask("DELETE", f"{fresh.client_url}/faults/{lossy}")
    until(lambda: prometheus.values(STALLED) == {}, 20)


def set_ack_delay(lab: Lab, replica: str, ack_delay_ms: float) -> None:
    post(f"{lab.primary_url}/admin/replication-delay", {"replica": replica, "ack_delay_ms": ack_delay_ms})


def median(prometheus: Prometheus, query: str) -> dict[str, float]:
    return prometheus.values(f"quantile_over_time(0.5, ({query})[3s:200ms])")


def test_the_lag_of_a_stopped_replica_grows_by_one_second_per_second(fresh: Lab, prometheus: Prometheus) -> None:
    with frozen(fresh.pids["lab14-replica2"]):
        post(f"{fresh.primary_url}/data", {"key": "k", "value": 1})
        until(lambda: prometheus.values(SECONDS).get("lab14-replica2", 0) > 7, 20)
        slope = prometheus.values(f"deriv(({SECONDS})[5s:500ms])")
        print(f"\nslope of the lag: {slope}")
        assert slope["lab14-replica2"] == pytest.approx(1.0, abs=0.2)
        assert prometheus.values(SECONDS)["lab14-replica1"] == 0
        until(lambda: prometheus.values(STATE)["lab14-replica2"] == 2, 10)
    converge(fresh)


def test_unknown_lag_is_a_gap_and_not_0(fresh: Lab, prometheus: Prometheus) -> None:
    until(lambda: len(prometheus.values(SECONDS)) == 2, 10)
    with frozen(fresh.pids[LOG_SERVER]):
        until(lambda: prometheus.values(SECONDS) == {} == prometheus.values(STATE), 20)
    until(lambda: len(prometheus.values(SECONDS)) == 2, 20)


def test_an_applied_write_has_an_exemplar_with_its_trace_id(fresh: Lab, prometheus: Prometheus) -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    POOL.request("POST", f"{fresh.primary_url}/data", body=b'{"key": "k", "value": 1}', headers=headers)

    def traces() -> set[str]:
        path = f"query_exemplars?query=ec_replication_delay_seconds_bucket&start={time.time() - 60}&end={time.time()}"
        return {found["labels"]["trace_id"] for series in prometheus.api(path) for found in series["exemplars"]}

    until(lambda: TRACE in traces(), 20)


def test_changes_are_annotated_at_the_time_of_the_change(fresh: Lab, prometheus: Prometheus) -> None:
    before = time.time()
    post(f"{fresh.primary_url}/admin/replication-delay", {"replica": "lab14-replica1", "delay_ms": 400})
    post(f"{fresh.primary_url}/admin/reset")
    query = 'max by (kind) (ec_config_change_timestamp_seconds{kind=~"delay|reset"})'

    def changed() -> set[str]:
        return {kind for kind, at in prometheus.values(query, "kind").items() if abs(at - before) < 5}

    until(lambda: changed() == {"delay", "reset"}, 20)


@pytest.mark.parametrize("fault", SHOWS)
def test_a_fault_shows_on_its_panel_until_it_ends(fresh: Lab, prometheus: Prometheus, fault: str) -> None:
    replica, other = fresh.replica_urls
    set_delays(fresh, 20, 20)
    parameters, query, beyond = SHOWS[fault]
    with Writers(fresh.primary_url, count=2, rate=50, keys=20):
        if fault == "crash":  # ends immediately, possibly between two scrapes
            until(lambda: seen_while_crashed(fresh, lambda: prometheus.values(query).get(replica, 0) > beyond), 40)
        else:
            post(f"{fresh.client_url}/faults", {"replica": replica, "fault": fault, **parameters})
            until(lambda: fault in prometheus.values(f"{ACTIVE_FAULTS} == 1", "fault"), 10)
            until(lambda: prometheus.values(query).get(replica, 0) > beyond, 20)
        assert prometheus.values(query).get(other, 0) <= beyond
        if fault != "crash":
            status, found = ask("DELETE", f"{fresh.client_url}/faults/{replica}")
            assert (status, found["ended"]) == (200, [fault])
    converge(fresh)
    until(lambda: prometheus.values(query).get(replica) == 0, 20)
    until(lambda: fault not in prometheus.values(f"{ACTIVE_FAULTS} == 1", "fault"), 10)
    assert fault in prometheus.values(f"{ACTIVE_FAULTS} == 0", "fault")


def seen_while_crashed(lab: Lab, is_seen: Callable[[], bool]) -> bool:
    """Crash the first replica and return whether the condition holds within three seconds."""
    ask("POST", f"{lab.client_url}/faults", {"replica": next(iter(lab.replica_urls)), "fault": "crash"})
    deadline = time.monotonic() + 3
    while not (seen := is_seen()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


def test_a_clock_ahead_makes_windows_shorter_than_the_delay(fresh: Lab, prometheus: Prometheus) -> None:
    replica, _ = fresh.replica_urls
    set_delays(fresh, 2000, 20)
    post(f"{fresh.client_url}/faults", {"replica": replica, "fault": "skew", "skew_ms": 1800})

    def window_ms() -> float:
        return float(post(f"{fresh.client_url}/write-and-wait", {"key": "k", "value": 1})["consistency_time_ms"])

    until(lambda: prometheus.values(CONFIGURED)[replica] == 2, 10)
    windows_ms = [window_ms() for _ in range(5)]
    until(lambda: 0 < prometheus.values(WINDOW_P50, "")[""] < 1, 20)
    assert max(windows_ms) < 1500
    ask("DELETE", f"{fresh.client_url}/faults/{replica}")
    assert window_ms() > 1900


def test_a_corrupt_value_shows_on_its_panel_until_it_is_repaired(fresh: Lab, prometheus: Prometheus) -> None:
    replica, other = fresh.replica_urls
    set_delays(fresh, 20, 20)
    post(f"{fresh.client_url}/write-and-wait", {"key": "k", "value": 1})
    post(f"{fresh.client_url}/faults", {"replica": replica, "fault": "corrupt"})
    until(lambda: prometheus.values(DIVERGED) == {replica: 1, other: 0}, 30)
    assert prometheus.values(BEHIND)[replica] == 0
    post(f"{fresh.client_url}/resync", {"replica": replica})
    until(lambda: prometheus.values(DIVERGED) == {replica: 0, other: 0}, 30)
