"""The client's store of experiments: what it keeps, and a damaged or unusable file."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nodes.client import store as stores
from nodes.client.store import ExperimentStore
from nodes.runtime.store import StoreError
from tests.support.experiments import document


def test_the_store_drops_the_oldest_ended_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "KEPT", 2)
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


def test_a_file_of_the_former_format_keeps_its_experiments(tmp_path: Path) -> None:
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
