"""Simulated disks: what a kill and a power failure leave of a replica's real SQLite file."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from broker.entry import Entry
from broker.position import Position
from lab.simulation import disk
from lab.simulation.disk import Disk
from lab.simulation.scheduler import Scheduler
from nodes.replica.store import ReplicaStore
from nodes.runtime.store import StoreError

NAME = "world"  # of the process of whatever is not a task


@contextmanager
def one(directory: Path, seed: int = 14) -> Iterator[Disk]:
    found = Disk(directory, Random(seed))
    with disk.installed(Scheduler(Random(seed)), {NAME: found}):
        yield found


def write(store: ReplicaStore, count: int) -> None:
    for _ in range(count):
        version = store.state().position.version + 1
        store.apply([Entry(Position(0, version), "set", f"k{version}", '"v"', f"w{version}", version)])


def version(found: Disk) -> int:
    store = ReplicaStore(found.directory)
    try:
        assert len(store.page("", 10_000, 10**9)[1]) == store.state().position.version
        return store.state().position.version
    finally:
        store.close()


def test_a_killed_process_leaves_every_commit(tmp_path: Path) -> None:
    with one(tmp_path) as found:
        store = ReplicaStore(found.directory)
        write(store, 20)
        found.leave("killed")
        store.close()
        assert version(found) == 20


def test_a_power_failure_takes_some_of_the_newest_commits(tmp_path: Path) -> None:
    left = []
    for seed in range(12):
        with one(tmp_path / str(seed), seed) as found:
            store = ReplicaStore(found.directory)
            write(store, 20)
            found.leave("power")
            store.close()
            left.append(version(found))
    assert len(set(left)) > 5
    assert max(left) <= 20


def test_a_power_failure_takes_nothing_from_before_a_checkpoint(tmp_path: Path) -> None:
    left = []
    for seed in range(12):
        with one(tmp_path / str(seed), seed) as found:
            store = ReplicaStore(found.directory)
            write(store, 10)
            with store._db._reader() as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            write(store, 10)
            found.leave("power")
            store.close()
            left.append(version(found))
    assert 10 <= min(left) < max(left) <= 20


def test_a_damaged_file_is_quarantined_when_it_is_opened(tmp_path: Path) -> None:
    with one(tmp_path) as found:
        store = ReplicaStore(found.directory)
        write(store, 20)
        store.close()
        found.leave("damaged")
        assert version(found) == 0
        assert (found.directory / "store.sqlite.quarantined").exists()


def test_a_full_disk_takes_no_commit_and_loses_none(tmp_path: Path) -> None:
    with one(tmp_path) as found:
        store = ReplicaStore(found.directory)
        write(store, 5)
        found.is_full = True
        with pytest.raises(StoreError, match="disk is full"):
            write(store, 1)
        assert store.state().position.version == 5
        found.is_full = False
        write(store, 1)
        store.close()
        assert version(found) == 6


def test_other_databases_are_real_afterwards(tmp_path: Path) -> None:
    with one(tmp_path):
        pass
    db = sqlite3.connect(tmp_path / "other.sqlite")
    assert type(db) is sqlite3.Connection
    db.close()
