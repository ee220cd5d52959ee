"""The exporter: the value of every metric of a simulated store, its HTTP server, and the labels of replicas."""

import math
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from urllib3.exceptions import HTTPError

from lab.errors import LabError
from lab.probe import exporter
from lab.probe.exporter import Exporter, labels, parsed, serving
from lab.probe.instrument import Instrument, Limits
from lab.probe.target import NotNow
from tests.support.http import POOL
from tests.support.until import until
from tests.unit.lab.probe.store import Delay, Node, ends_at, simulate, store

ENDLESS = Limits(writes_per_second=1.0, seconds=math.inf, writes_max=sys.maxsize)


class Exported(NamedTuple):
    """The registry at the end of the run, which is just after a write; and the gauges at the end of each second."""

    registry: CollectorRegistry
    seconds: dict[int, dict[str, float]]

    def at(self, second: int, name: str) -> float | None:
        return self.seconds[second].get(name)

    def value(self, name: str, **with_labels: str) -> float | None:
        return self.registry.get_sample_value(name, with_labels)


GAUGES = ("ec_replica_applied_version", "ec_replica_lag_versions", "ec_replica_lag_seconds")


def export(
    *delays: Delay,
    seconds: float,
    before: Callable[[Node, list[Node]], None] = lambda *_: None,
    limits: Limits = ENDLESS,
) -> Exported:
    registry = CollectorRegistry()
    primary, replicas = store(*delays)
    before(primary, replicas)
    found = Exporter(registry, [replica.name for replica in replicas])
    values: dict[int, dict[str, float]] = {}

    def on_step(run: Instrument) -> None:
        ends_at(seconds)(run)
        samples = [sample for family in found.collect() for sample in family.samples]
        own = {sample.name: sample.value for sample in samples if sample.labels.get("replica") == "replica1"}
        values[int(run.now() - run.shared.started)] = own

    simulate(primary, replicas, limits, on_step, found)
    return Exported(registry, values)


def test_the_lag_of_an_idle_store_is_0_and_versions_count_writes() -> None:
    found = export(lambda _: 0.0, seconds=20)
    assert found.seconds[19] == dict(zip(GAUGES, (20, 0, 0), strict=True))
    assert found.value("ec_primary_version") == 21
    assert found.value("ec_writes_total", result="acknowledged") == 21
    assert found.value("ec_writes_total", result="unknown") == 0
    assert found.value("ec_write_duration_seconds_count") == 21
    assert found.value("ec_consistency_window_seconds_count", outcome="converged") == 20
    assert found.value("ec_consistency_window_seconds_count", outcome="timeout") == 0
    assert found.value("ec_probe_errors_total", operation="write", replica="") == 0


def test_delays_are_upper_ends_and_brackets_their_certainty() -> None:
    found = export(lambda _: 0.2, lambda _: 0.0, seconds=21)
    delays = {name: found.value("ec_replication_delay_seconds_sum", replica=name) for name in ("replica1", "replica2")}
    assert 21 * 0.2 <= delays["replica1"] <= 21 * 0.22
    assert delays["replica2"] <= 21 * 0.005
    windows = found.value("ec_consistency_window_seconds_sum", outcome="converged")
    assert windows == pytest.approx(delays["replica1"])
    assert found.value("ec_probe_bracket_seconds_count", replica="replica1") == 21
    assert found.value("ec_probe_bracket_seconds_sum", replica="replica1") <= 21 * 0.02


def test_a_stopped_replica_grows_beyond_the_time_after_which_a_write_is_given_up() -> None:
    found = export(lambda at: 0.0 if at < 1010 else max(0.0, 1080.5 - at), seconds=90)
    for second in (30, 50, 79):
        assert found.at(second, "ec_replica_lag_seconds") == pytest.approx(second - 10, abs=2)
        assert found.at(second, "ec_replica_lag_versions") == pytest.approx(second - 10, abs=2)
        assert found.at(second, "ec_replica_applied_version") == 10
    assert found.at(88, "ec_replica_lag_seconds") == 0
    assert found.at(88, "ec_replica_lag_versions") == 0
    assert found.value("ec_consistency_window_seconds_count", outcome="timeout") == pytest.approx(41, abs=3)
    assert found.value("ec_consistency_window_seconds_sum", outcome="timeout") >= 38 * 30


def test_what_is_unknown_is_absent() -> None:
    def refuse(primary: Node, replicas: list[Node]) -> None:
        is_refused = lambda at: at < 1010 or 1040 <= at < 1070  # noqa: E731
        replicas[0].fails = lambda _: NotNow("refused") if is_refused(primary.clock.at) else None

    found = export(lambda _: 0.1, seconds=90, before=refuse)
    for second, is_known in {5: False, 20: True, 45: True, 60: False, 85: True}.items():
        for gauge in GAUGES:
            assert (found.at(second, gauge) is not None) == is_known, (second, gauge)
    assert found.at(45, "ec_replica_lag_seconds") == pytest.approx(5, abs=1.5)
    errors = found.value("ec_probe_errors_total", operation="read", replica="replica1")
    assert errors is not None
    assert errors > 20


def test_a_store_without_an_acknowledged_write_has_no_version() -> None:
    def refuse(primary: Node, _: list[Node]) -> None:
        primary.fails = lambda _: NotNow("refused")

    found = export(lambda _: 0.1, seconds=10, before=refuse)
    assert found.value("ec_primary_version") is None
    assert found.value("ec_writes_total", result="unknown") == 11
    assert found.value("ec_probe_errors_total", operation="write", replica="") == 11
    assert found.value("ec_consistency_window_seconds_count", outcome="converged") == 0


def test_nothing_grows_with_the_length_of_the_run() -> None:
    registry = CollectorRegistry()
    found = Exporter(registry, ["a", "b"])
    primary, replicas = store(lambda _: 0.1, lambda at: 1e9 if at > 1010 else 0.1)
    primary.fails = lambda number: NotNow("busy") if number % 3 == 0 else None
    simulate(primary, replicas, Limits(1.0, math.inf, sys.maxsize, give_up_seconds=5.0), ends_at(60), found)
    assert len(found._ends) <= 6


@pytest.fixture
def served() -> Iterator[tuple[Exporter, str]]:
    with serving("127.0.0.1:0", [Node("http://user:secret@db1:5432/x", store()[0].clock)]) as (found, url):
        yield found, url


def test_the_server_has_metrics_health_and_nothing_else(served: tuple[Exporter, str]) -> None:
    found, url = served
    answer = POOL.request("GET", f"{url}/metrics")
    assert answer.status == 200
    families = {family.name: family for family in text_string_to_metric_families(answer.data.decode())}
    assert {sample.labels["replica"] for sample in families["ec_probe_bracket_seconds"].samples} == {"db1:5432"}
    assert "ec_replica_lag_seconds" not in families
    assert b"secret" not in answer.data
    health = POOL.request("GET", f"{url}/health")
    assert (health.status, health.json()) == (200, {"status": "ok", "failing": {}})
    found.failing["read", "db1:5432"] = "connection refused"
    health = POOL.request("GET", f"{url}/health")
    assert health.json() == {"status": "degraded", "failing": {"read db1:5432": "connection refused"}}
    for method, path, status in (("GET", "/", 404), ("POST", "/metrics", 405), ("GET", "/metrics/x", 404)):
        assert POOL.request(method, f"{url}{path}", retries=False).status == status


def connected(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def test_a_connection_beyond_the_maximum_is_closed_at_once(
    served: tuple[Exporter, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter._Handler, "timeout", 60)
    _, url = served
    with ExitStack() as stack:
        for _ in range(exporter._CONNECTIONS_MAX):
            stack.enter_context(connected(url))
        assert stack.enter_context(connected(url)).recv(1) == b""
    until(lambda: status(url) == 200)


def test_a_connection_without_a_request_is_closed(
    served: tuple[Exporter, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter._Handler, "timeout", 0.1)
    with connected(served[1]) as idle:
        assert idle.recv(1) == b""


def status(url: str) -> int:
    try:
        return POOL.request("GET", f"{url}/health", retries=False).status
    except HTTPError:  # the others are still being closed
        return 0


def test_an_address_that_is_taken_is_one_sentence() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(LabError, match="cannot be listened on"),
        serving(f"127.0.0.1:{taken.getsockname()[1]}", []),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "found"),
    [("9109", ("127.0.0.1", 9109)), (":1", ("127.0.0.1", 1)), ("0.0.0.0:2", ("0.0.0.0", 2)), ("[::1]:3", ("::1", 3))],
)
def test_the_address_is_a_port_or_a_host_with_one(address: str, found: tuple[str, int]) -> None:
    assert parsed(address) == found


@pytest.mark.parametrize("address", ["", "host", "host:", "host:x", "host:65536", "host:-1"])
def test_an_address_without_a_port_is_one_sentence(address: str) -> None:
    with pytest.raises(LabError, match="is not of the form HOST:PORT"):
        parsed(address)


def test_a_label_is_the_place_in_an_address_short_unique_and_without_a_password() -> None:
    addresses = {
        "postgresql://me:secret@db1:5432/app": "db1:5432",
        "host=db2 port=5433 dbname=app user=me password=secret": "db2:5433",
        "dbname=app host='db3'": "db3",
        "service=r1": "r1",
        "GET http://a:80/kv/{key}?token=secret": "a:80",
        "db4:6379": "db4:6379",
        "x" * 200: "x" * 60,
    }
    assert labels([*addresses]) == [*addresses.values()]
    assert labels(["service=r1", "service=r1", "service=r1"]) == ["r1", "r1-2", "r1-3"]
