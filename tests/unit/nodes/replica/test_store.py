"""The replica's store: data and position change together or not at all."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.entry import EMPTY, Entry, Operation, Record, digest
from broker.position import START, Position
from broker.snapshot import Snapshot
from nodes.replica.store import ReplicaStore
from nodes.runtime import store as files
from nodes.runtime.gate import State
from nodes.runtime.store import StoreDamaged, StoreError
from tests.support.damage import DAMAGES, change

Patch = pytest.MonkeyPatch


def entry(version: int, key: str = "k", value: str = "1", op: Operation = "set", epoch: int = 1) -> Entry:
    return Entry(Position(epoch, version), op, key, value, f"w{version}", 1000 + version)


BEGIN = entry(0, "", "", "epoch")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplicaStore]:
    found = ReplicaStore(tmp_path / "deep" / "store")
    yield found
    found.close()


def keys(store: ReplicaStore) -> dict[str, str]:
    return {record.key: record.value for record in store.page("", 100, 10**6)[1]}


def test_a_new_store_is_before_everything(store: ReplicaStore) -> None:
    assert store.state().position == START
    assert store.digest()[1:] == (0, EMPTY)


def test_a_batch_is_applied_with_its_last_position(store: ReplicaStore) -> None:
    batch = [BEGIN, entry(1, "a"), entry(2, "b"), entry(3, "a", "2"), entry(4, "b", "", "delete"), entry(5, "c")]
    state = store.apply(batch)
    assert state == store.state() == State(Position(1, 5), "w5", 1005)
    assert keys(store) == {"a": "2", "c": "1"}
    assert store.get("a") == (state, Record("a", "2", 3, "w3", 1003))
    assert store.get("b") == (state, None)


@pytest.mark.parametrize("wrong", [entry(1), entry(2), entry(4), entry(3, epoch=2), entry(1, epoch=2)])
def test_entries_that_do_not_follow_are_refused_and_change_nothing(store: ReplicaStore, wrong: Entry) -> None:
    store.apply([BEGIN, entry(1), entry(2)])
    before = (store.state(), keys(store))
    with pytest.raises(StoreError, match="does not follow"):
        store.apply([wrong])
    assert (store.state(), keys(store)) == before


def test_a_gap_in_the_middle_of_a_batch_refuses_all_of_it(store: ReplicaStore) -> None:
    with pytest.raises(StoreError):
        store.apply([BEGIN, entry(1), entry(3)])
    assert store.state().position == START
    assert keys(store) == {}


def test_an_epoch_empties(store: ReplicaStore) -> None:
    store.apply([BEGIN, entry(1, "old")])
    store.apply([entry(0, "", "", "epoch", epoch=2), entry(1, "new", epoch=2)])
    assert keys(store) == {"new": "1"}
    assert store.state().position == Position(2, 1)


def test_everything_is_kept_after_reopening(tmp_path: Path) -> None:
    with closing(ReplicaStore(tmp_path)) as first:
        first.apply([BEGIN, entry(1)])
    with closing(ReplicaStore(tmp_path)) as second:
        assert (second.state().position, keys(second)) == (Position(1, 1), {"k": "1"})


def test_a_snapshot_replaces_everything(store: ReplicaStore) -> None:
    store.apply([BEGIN, entry(1, "old")])
    record = Record("new", "9", 40, "w40", 5)
    state = store.install(Snapshot(Position(1, 42), "w42", 7, [record]))
    assert state == store.state() == State(Position(1, 42), "w42", 7)
    assert store.get("new")[1] == record
    assert keys(store) == {"new": "9"}


def test_pages_hold_every_key_once_in_byte_order(store: ReplicaStore) -> None:
    names = ["b", "a", "ü", "Z", "a/b", "a b", "\x00", "zz"]
    store.apply([BEGIN, *(entry(number + 1, name) for number, name in enumerate(names))])
    seen: list[str] = []
    more = True
    while more:
        _, records, more = store.page(seen[-1] if seen else "", 3, 10**6)
        seen += [record.key for record in records]
    assert seen == sorted(names, key=str.encode)


def test_a_page_ends_once_it_exceeds_its_bytes(store: ReplicaStore) -> None:
    store.apply([BEGIN, *(entry(number, f"k{number}", "x" * 100) for number in range(1, 5))])
    _, records, more = store.page("", 100, 150)
    assert (len(records), more) == (2, True)


def test_the_digest_is_that_of_the_stored_content(store: ReplicaStore, tmp_path: Path) -> None:
    store.apply([BEGIN, entry(1, "a"), entry(2, "b")])
    assert store.digest()[1:] == digest([("w1", "a", "1"), ("w2", "b", "1")])
    change(tmp_path / "deep" / "store" / "store.sqlite", "UPDATE data SET value = '2' WHERE key = 'a'")
    assert store.digest()[1:] != digest([("w1", "a", "1"), ("w2", "b", "1")])


def test_one_process_at_a_time(store: ReplicaStore, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(files, "_LOCK_WAIT_SECONDS", 0.1)
    with pytest.raises(StoreError, match="in use by another process"):
        ReplicaStore(tmp_path / "deep" / "store")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_quarantined_and_the_store_starts_over(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # also a second time, with a file that stands there already
        with closing(ReplicaStore(tmp_path)) as store:
            store.install(Snapshot(Position(1, 1), "w", 1, [Record(f"k{n}", "1", 1, "w", 1) for n in range(500)]))
        damage(tmp_path / "store.sqlite")
        caplog.clear()
        with closing(ReplicaStore(tmp_path)) as store:
            assert (store.state().position, store.page("", 10, 1000)[1]) == (Position(0, 0), [])
        assert "is quarantined as store.sqlite.quarantined" in caplog.text
        (tmp_path / "store.sqlite").unlink()
    assert (tmp_path / "store.sqlite.quarantined").exists()


def test_an_empty_or_a_missing_file_is_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").touch()
    with closing(ReplicaStore(tmp_path)) as store:
        assert store.state().position == Position(0, 0)
    assert not (tmp_path / "store.sqlite.quarantined").exists()


def test_later_damage_is_distinguished_from_other_errors(tmp_path: Path) -> None:
    with closing(ReplicaStore(tmp_path)) as store:
        store.install(Snapshot(Position(1, 1), "w", 1, [Record(f"k{n}", "1" * 100, 1, "w", 1) for n in range(5000)]))
        change(tmp_path / "store.sqlite", "PRAGMA wal_checkpoint(TRUNCATE)")
        with (tmp_path / "store.sqlite").open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 300_000)
        with pytest.raises(StoreDamaged):
            store.digest()


def test_a_checkpoint_bounds_the_write_ahead_log(store: ReplicaStore, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(files, "_CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr(files, "_RESTART_BYTES", 200_000)
    store.apply([BEGIN])
    sizes = []
    for version in range(1, 400):
        store.apply([entry(version, value="x" * 3000)])
        store.checkpoint()
        sizes.append((tmp_path / "deep" / "store" / "store.sqlite-wal").stat().st_size)
    assert max(sizes) < 400_000
    assert store.state().position == Position(1, 399)


def test_a_page_that_ends_early_leaves_no_connection_in_the_past(store: ReplicaStore, monkeypatch: Patch) -> None:
    store.apply([BEGIN, *(entry(number, f"k{number}") for number in range(1, 6))])
    genuine = store._db._readers.put
    seen = []

    def then_the_next_one_reads(db: sqlite3.Connection) -> None:
        genuine(db)
        if not seen:
            seen.append(store.apply([entry(6)]).position)
            seen.append(store.state().position)

    monkeypatch.setattr(store._db._readers, "put", then_the_next_one_reads)
    assert store.page("", 1, 10**6)[2]
    assert seen == [Position(1, 6)] * 2


def test_the_newest_applied_position_is_durable_and_replaced_by_a_snapshot(tmp_path: Path) -> None:
    store = ReplicaStore(tmp_path)
    before = store.state()
    entries = [Entry(Position(1, 0), "epoch", "", "", "o", 1), Entry(Position(1, 4), "delete", "k", "", "w4", 1)]
    after = State(Position(1, 0), "o", 1, beyond=4)
    store.merge(entries, before, after, store.generation)
    store.close()
    store = ReplicaStore(tmp_path)
    assert store.state() == after
    assert store.state().newest == Position(1, 4)
    assert store.apply([Entry(Position(1, 1), "set", "j", '"v"', "w1", 1)]) == store.state()
    assert (store.state().position, store.state().newest) == (Position(1, 1), Position(1, 4))
    store.install(Snapshot(Position(1, 3), "w3", 1, []))
    assert store.state().newest == Position(1, 3)
    store.apply([Entry(Position(1, 4), "set", "k", '"v"', "w4", 1)])
    assert store.state() == State(Position(1, 4), "w4", 1)
    store.close()
