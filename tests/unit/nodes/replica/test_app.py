"""The replica's endpoints: its exceptions become problem details."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from broker.delay.models import Exponential, Fixed
from broker.registry import Settings
from nodes.replica import history
from nodes.replica.app import create_app
from nodes.replica.faults import FAULTS
from nodes.runtime.config import load
from nodes.runtime.store import StoreDamaged, StoreError


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    """A replica whose threads are not started."""
    environment = {"LAB_DATA_DIR": str(tmp_path), "LAB_REDIS_URL": "redis://127.0.0.1:9/0"}
    made = create_app(load("replica", environment))  # type: ignore[arg-type]
    yield made
    made.extensions["node"].parts.store.close()


@pytest.fixture
def client(app: Any) -> FlaskClient:
    return app.test_client()  # type: ignore[no-any-return]


def test_available_faults_are_listed_with_their_parameters(client: FlaskClient) -> None:
    found = client.get("/admin/faults").get_json()
    assert (found["faults"], set(found["available"])) == ([], set(FAULTS))


def test_a_fault_that_is_not_active_cannot_be_ended(client: FlaskClient) -> None:
    answer = client.delete("/admin/faults/pause")
    assert (answer.status_code, answer.get_json()["detail"]) == (404, "'pause' is not active; active: none.")


def test_an_empty_store_cannot_be_corrupted(client: FlaskClient) -> None:
    answer = client.post("/admin/faults", json={"fault": "corrupt"})
    assert (answer.status_code, answer.get_json()["type"].split(":")[-1]) == (409, "nothing-to-corrupt")


def test_a_busy_history_asks_to_try_again(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_WAITING_MAX", 0)
    cursor = client.get("/applied").get_json()["cursor"]
    answer = client.get(f"/applied?cursor={cursor}&timeout_ms=10")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


@pytest.mark.parametrize("thread", ["reader", "membership", "acknowledger"])
def test_each_thread_that_needs_the_log_can_degrade_the_replica(app: Any, client: FlaskClient, thread: str) -> None:
    app.extensions["node"]._threads[thread].trouble = "the log server refused: NOPERM"
    answer = client.get("/health")
    assert (answer.status_code, answer.get_json()["checks"]["log"]) == (503, "the log server refused: NOPERM")


def test_a_failing_store_is_unavailable(app: Any, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise StoreError("the store cannot be read")

    monkeypatch.setattr(app.extensions["node"].parts.store, "digest", fail)
    answer = client.get("/digest")
    assert (answer.status_code, answer.get_json()["detail"]) == (503, "the store cannot be read.")


def held_seconds(app: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which reads are held back, which do not pass."""
    found: list[float] = []
    monkeypatch.setattr(app.extensions["node"].parts.gate, "hold", found.append)
    return found


def test_data_reads_are_held_back_by_the_read_delay(
    app: Any, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, held = app.extensions["node"], held_seconds(app, monkeypatch)
    monkeypatch.setattr(replica, "parts", replace(replica.parts, uniform=lambda: 0.5))
    client.get("/data/k")
    replica._apply_settings(Settings(Fixed(0), read=Exponential(1000)))
    for path in ("/data/k", "/data", "/version", "/health", "/metrics", "/digest"):
        client.get(path)
    assert held == [0, pytest.approx(0.693, abs=0.001), pytest.approx(0.693, abs=0.001)]


def test_answers_have_the_time_of_the_read_and_its_delay(app: Any, client: FlaskClient) -> None:
    replica = app.extensions["node"]
    replica._apply_settings(Settings(Fixed(0), read=Fixed(30)))
    before_us = replica.now_us()
    found = client.get("/data/k").get_json()
    read_at_us = datetime.fromisoformat(found["read_at"]).timestamp() * 1e6
    assert (found["status"], found["read_delay_ms"]) == (404, 30)
    assert read_at_us >= before_us + 30_000


def test_reads_beyond_the_places_to_wait_are_refused(app: Any, client: FlaskClient) -> None:
    app.extensions["node"]._apply_settings(Settings(Fixed(0), read=Fixed(1)))
    app.extensions["node"].parts.gate._max_waiters = 0
    answer = client.get("/data/k")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert client.get("/version").status_code == 200


@pytest.mark.parametrize("thread", ["reader", "applier", "audit"])
def test_a_store_that_any_thread_finds_damaged_ends_the_process(
    app: Any, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    def fail(*_: object) -> None:
        raise StoreDamaged("malformed")

    replica, ended = app.extensions["node"], list[bool]()
    replica.parts = replace(replica.parts, end_process=lambda: ended.append(True))
    replica._membership.registered.set()
    for worker in (replica._reader, replica._applier, replica._audit):
        monkeypatch.setattr(worker, "step", fail)
    monkeypatch.setattr(replica.parts.inbox, "wait_until_due", lambda: None)
    with pytest.raises(StoreDamaged):
        replica._threads[thread]._step()
    assert ended == [True]
