"""Order of arrival: entries are applied when they are due, with the same final state as in log order."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import snapshot
from broker.delay.line import Schedule
from broker.delay.models import Exponential
from broker.entry import Entry
from broker.position import Position
from nodes.replica.applier import Progress
from nodes.runtime.gate import State
from nodes.runtime.store import StoreError
from tests.support.replica import REPLICA, Bench

BEGAN = State(Position(1, 0), "w0", 0)


def entry(version: int, key: str = "k", op: Any = "set") -> Entry:
    return Entry(Position(1, version), op, key, str(version), f"w{version}", version)


@given(st.permutations(range(1, 9)))
def test_the_position_is_the_highest_below_which_nothing_is_missing(versions: list[int]) -> None:
    state, progress, applied = BEGAN, Progress(), set()
    for version in versions:
        state, progress = progress.after(state, [entry(version)])
        applied.add(version)
        expected = max(v for v in range(9) if set(range(1, v + 1)) <= applied)
        assert (state.position.version, state.write_id) == (expected, f"w{expected}")
        assert {position.version for position in progress.beyond} == {v for v in applied if v > expected}


def test_a_delete_beyond_the_position_keeps_older_entries_from_coming_back() -> None:
    state, progress = Progress().after(BEGAN, [entry(3, op="delete")])
    assert progress.visible([entry(2), entry(1, "other"), entry(4)]) == [entry(1, "other"), entry(4)]
    state, progress = progress.after(state, [entry(1), entry(2)])
    assert (state.position, progress) == (Position(1, 3), Progress())


def test_an_epoch_forgets_entries_beyond_the_position() -> None:
    _, progress = Progress().after(BEGAN, [entry(3)])
    begin = Entry(Position(2, 0), "epoch", "", "", "e", 9)
    assert progress.after(BEGAN, [begin]) == (State(Position(2, 0), "e", 9), Progress())


def start(fake: Any, directory: Path) -> Bench:
    bench = Bench(fake, directory)
    bench.inbox.set_schedule(Schedule(Exponential(1000), "arrival", seed=3))
    return bench


@pytest.fixture
def bench(fake: Any, tmp_path: Path) -> Any:
    found = start(fake, tmp_path)
    found.log.open("o")
    yield found
    found.close()


def write_and_read(bench: Bench, seed: int, count: int = 60) -> None:
    random = Random(seed)
    for number in range(count):
        key = f"k{random.randrange(6)}"
        if random.random() < 0.3:
            bench.log.append("delete", key, "", f"d{seed}-{number}")
        else:
            bench.log.append("set", key, f'"{number}"', f"s{seed}-{number}")
    for _ in range(3):
        bench.read()
    bench.clock.us = bench.log.history.now_us()


def primary(bench: Bench) -> dict[str, str]:
    return {record.key: record.value for record in bench.log.page("", 1000, 10**9).records}


def step_through(bench: Bench, step_ms: int = 50, steps: int = 400) -> int:
    """Advance the clock and apply due entries; return how often entries were beyond the position."""
    beyond = 0
    for _ in range(steps):
        bench.clock.us += step_ms * 1000
        bench.apply()
        bench.acknowledge()
        beyond += bool(bench.applier._progress.beyond)
    return beyond


@pytest.mark.parametrize("seed", range(30))
def test_in_the_end_the_store_is_the_primarys(bench: Bench, seed: int) -> None:
    write_and_read(bench, seed)
    assert step_through(bench) > 5, "something was applied out of order"
    assert bench.data() == primary(bench)
    assert bench.position() == str(bench.log.head().position)
    assert bench.store.digest()[2] == bench.log.head().digest
    assert bench.pending() == 0


def test_an_entry_applied_beyond_the_position_and_delivered_again_is_acknowledged_again(bench: Bench) -> None:
    write_and_read(bench, 1)
    step_through(bench, steps=10)
    beyond = [position for position in bench.applier._progress.beyond if position not in bench.inbox]
    assert beyond
    waiting = bench.pending()
    bench.log.group(REPLICA).rewind(bench.store.state().position)
    bench.read()
    assert bench.pending() == waiting + len(beyond)
    bench.acknowledge()
    assert bench.pending() == waiting


def test_after_a_restart_entries_beyond_the_position_come_again(bench: Bench, fake: Any, tmp_path: Path) -> None:
    write_and_read(bench, 1)
    step_through(bench, steps=10)
    assert bench.applier._progress.beyond
    head = bench.log.head()
    bench.close()
    again = start(fake, tmp_path)
    for _ in range(5):
        again.read()
    again.clock.us = bench.clock.us
    step_through(again)
    assert (again.position(), again.data()) == (str(head.position), primary(again))
    assert again.store.digest()[2] == head.digest
    assert again.pending() == 0
    again.close()


def test_nothing_is_merged_into_a_store_that_a_snapshot_has_replaced(bench: Bench) -> None:
    write_and_read(bench, 2)
    bench.store.install(snapshot.take(bench.log))
    generation, state = bench.store.generation, bench.store.state()
    bench.store.install(snapshot.take(bench.log))  # at the same position
    with pytest.raises(StoreError, match="snapshot"):
        bench.store.merge([entry(99)], state, state, generation)
    bench.store.merge([entry(99)], state, state, bench.store.generation)
    with pytest.raises(StoreError, match="snapshot"):
        bench.store.merge([entry(99)], BEGAN, BEGAN, bench.store.generation)


def test_what_was_due_before_a_snapshot_replaced_the_store_is_not_applied_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.log.append("set", "k", '"gone"', "w1")
    bench.read()
    bench.log.append("delete", "k", "", "w2")
    bench.clock.us = bench.log.history.now_us() + 60_000_000
    due = bench.inbox.due

    def replaced(limit: int) -> Any:
        found = due(limit)
        with bench.inbox.clearing():
            bench.parts.gate.replace(bench.store.install(snapshot.take(bench.log)))
        return found

    monkeypatch.setattr(bench.inbox, "due", replaced)
    with pytest.raises(StoreError, match="snapshot"):
        bench.applier.step()
    assert bench.store.digest()[2] == bench.log.head().digest


def test_changing_the_order_in_between_loses_nothing(bench: Bench) -> None:
    write_and_read(bench, 4)
    step_through(bench, steps=8)
    bench.inbox.set_schedule(Schedule(Exponential(1000), "log", seed=3))
    step_through(bench)
    assert (bench.data(), bench.store.digest()[2]) == (primary(bench), bench.log.head().digest)
