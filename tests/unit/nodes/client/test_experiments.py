"""Experiments at the client: queued, canceled, collected, lost."""

import json
import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import fakeredis
import pytest

from nodes.client import experiments as module
from nodes.client.errors import ExperimentEnded, NoSuchExperiment, QueueFull
from nodes.client.experiments import WAITING_MAX, Experiments, ExperimentStore, RawQuery
from nodes.experiments.queue import ExperimentQueue, Stop
from nodes.experiments.spec import Experiment, ExperimentBody
from nodes.runtime.store import StoreError
from tests.support.experiments import document
from tests.support.problems import answered

WINDOWS = {"kind": "windows"}


def spec(**more: Any) -> ExperimentBody:
    return ExperimentBody.model_validate({**WINDOWS, **more})


class Bench:
    """A client's experiments, and the worker's view of the queue."""

    def __init__(self, directory: Path) -> None:
        self.server = fakeredis.FakeServer()
        self.queue = ExperimentQueue(fakeredis.FakeRedis(server=self.server, protocol=2))
        self.store = ExperimentStore(directory)
        self.experiments = Experiments(self.queue, self.store)

    def submit(self) -> Experiment:
        return self.experiments.submit(spec())

    def state(self, name: str) -> tuple[str, str | None]:
        found = self.experiments.get(name, RawQuery())
        return found["state"], found["reason"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_experiment_is_queued_and_its_report_is_kept_when_the_log_server_is_gone(bench: Bench) -> None:
    submitted = bench.submit()
    name = submitted["id"]
    assert bench.state(name) == ("queued", None)
    assert bench.queue.jobs.get_job_ids() == [name]
    result = {"windows": 3, "raw": [1, 2, 3]}
    bench.queue.report({**submitted, "state": "finished", "result": result})
    found = bench.experiments.get(name, RawQuery(raw=True))
    assert (found["state"], found["result"]) == ("finished", result)
    assert bench.queue.reported(name) is None, "the client has it, and nothing stays behind"
    bench.server.connected = False
    assert bench.experiments.get(name, RawQuery())["result"] == {"windows": 3}
    (listed,) = bench.experiments.all()["experiments"]
    assert (listed["id"], listed["result"]) == (name, None)


def test_a_waiting_experiment_is_withdrawn_and_a_running_one_is_stopped(bench: Bench) -> None:
    waiting, running = bench.submit(), bench.submit()
    assert bench.experiments.cancel(waiting["id"])["state"] == "cancelled"
    assert bench.queue.jobs.get_job_ids() == [running["id"]]
    bench.queue.jobs.remove(running["id"])  # like a worker that takes it
    bench.queue.report({**running, "state": "running"})
    assert bench.experiments.cancel(running["id"])["state"] == "running"
    assert bench.queue.wait_for_stop(running["id"], 0.1) == Stop("cancelled", "it was canceled")
    for name, kind, status in ((waiting["id"], ExperimentEnded, 409), ("nothing", NoSuchExperiment, 404)):
        with pytest.raises(kind) as refused:
            bench.experiments.cancel(name)
        assert answered(refused.value).status == status


def test_an_experiment_lost_by_the_log_server_has_failed(bench: Bench) -> None:
    name = bench.submit()["id"]
    bench.queue.jobs.connection.flushall()
    state, reason = bench.state(name)
    assert (state, "lost" in str(reason)) == ("failed", True)


def test_the_queue_is_bounded(bench: Bench) -> None:
    names = [bench.submit()["id"] for _ in range(WAITING_MAX)]
    with pytest.raises(QueueFull) as refused:
        bench.submit()
    assert (answered(refused.value).status, "Retry-After" in refused.value.headers) == (429, True)
    bench.experiments.cancel(names[0])
    bench.submit()


def test_an_experiment_that_cannot_be_queued_has_failed(bench: Bench) -> None:
    bench.server.connected = False
    with pytest.raises(Exception, match="log server"):
        bench.submit()
    (found,) = bench.experiments.all()["experiments"]
    assert found["state"] == "failed"


MEASUREMENTS = {"raw": {"t_ms": [number + 0.5 for number in range(20_000)]}}
SPEC = {"settings": {"r": {"model": {"kind": "trace", "delays_ms": MEASUREMENTS["raw"]["t_ms"]}}}}


def test_the_list_reads_neither_measurements_nor_specifications_and_one_reads_no_measurements(bench: Bench) -> None:
    for number in range(20):
        steps = [{"value": 1, "result": {"reads": 2, **MEASUREMENTS}}]
        bench.store.put({**document(str(number), "finished"), "spec": SPEC, "result": {"steps": steps, **MEASUREMENTS}})
    one_mb = len(json.dumps(SPEC))
    listed, peak = peak_bytes(bench.experiments.all)
    assert len(listed["experiments"]) == 20
    assert {str(found["spec"]) for found in listed["experiments"]} == {"None"}
    print(f"\nthe list: {peak / 1e6:.2f} MB")
    assert peak < one_mb
    found, peak = peak_bytes(lambda: bench.experiments.get("7", RawQuery()))
    assert found["result"] == {"steps": [{"value": 1, "result": {"reads": 2}}]}
    print(f"one: {peak / 1e6:.2f} MB, of which its specification takes most")
    complete = bench.experiments.get("7", RawQuery(raw=True))
    assert complete["result"] == {"steps": steps, **MEASUREMENTS}
    assert complete["spec"] == found["spec"] == SPEC


def peak_bytes(function: Callable[[], Any]) -> tuple[Any, int]:
    """The result of a function, and the peak memory of Python's objects during the call."""
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_experiments_that_a_dead_worker_had_taken_are_found(bench: Bench) -> None:
    started, taken, waiting = bench.submit(), bench.submit(), bench.submit()
    connection = bench.queue.jobs.connection
    for name in (started["id"], taken["id"]):
        bench.queue.jobs.remove(name)
    connection.zadd(bench.queue.jobs.started_job_registry.key, {f"{started['id']}:execution": 1e12})
    bench.queue.report({**started, "state": "running", "progress": 0.5})
    connection.rpush(bench.queue.jobs.intermediate_queue.key, taken["id"])
    found = bench.queue.abandoned()
    assert sorted((one["id"], one["state"]) for one in found) == sorted(
        [(started["id"], "running"), (taken["id"], "queued")]
    )
    for one in found:
        bench.queue.report({**one, "state": "failed", "reason": "its worker died"})
        bench.queue.remove_job(one["id"])
    assert bench.queue.abandoned() == []
    assert bench.state(started["id"]) == bench.state(taken["id"]) == ("failed", "its worker died")
    assert bench.state(waiting["id"]) == ("queued", None)


def test_the_store_drops_the_oldest_ended_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    store = ExperimentStore(tmp_path)
    for number, state in enumerate(["queued", "finished", "failed", "cancelled"]):
        store.put(document(str(number), state))
    assert [found["id"] for found in store.all()] == ["3", "2", "0"]
    assert [found["id"] for found in store.unended()] == ["0"]


def test_an_ended_experiment_does_not_change_even_after_a_restart(tmp_path: Path) -> None:
    store = ExperimentStore(tmp_path)
    store.put(document("1", "finished"))
    store.put(document("1", "running"))
    store.close()
    assert [found["state"] for found in ExperimentStore(tmp_path).all()] == ["finished"]


def test_a_file_in_the_previous_format_keeps_its_experiments(tmp_path: Path) -> None:
    before = {
        **document("1", "finished"),
        "spec": {"kind": "windows"},
        "result": {"count": 3, "raw": {"t_ms": [0.5, 1.5]}},
    }
    with closing(sqlite3.connect(tmp_path / "experiments.sqlite")) as file, file:
        file.execute(
            "CREATE TABLE experiments (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
            " ended INTEGER NOT NULL, document TEXT NOT NULL)"
        )
        file.execute("INSERT INTO experiments (id, ended, document) VALUES ('1', 1, ?)", [json.dumps(before)])
    for _ in range(2):
        store = ExperimentStore(tmp_path)
        assert [(found["id"], found["result"]) for found in store.all()] == [("1", None)]
        assert store.get("1", raw=True) == before
        assert store.get("1", raw=False) == {**before, "result": {"count": 3}}
        store.close()


def test_a_store_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        ExperimentStore(tmp_path / "file")


def test_a_damaged_file_is_quarantined_and_the_client_starts(tmp_path: Path) -> None:
    (tmp_path / "experiments.sqlite").write_bytes(b"no database at all" * 100)
    store = ExperimentStore(tmp_path)
    store.put(document("1", "finished"))
    assert [found["id"] for found in store.all()] == ["1"]
    assert (tmp_path / "experiments.sqlite.quarantined").exists()
