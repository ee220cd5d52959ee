"""The history of applied entries: bounded, searchable, and waitable."""

import itertools
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.position import Position
from nodes.replica import history as histories
from nodes.replica.history import Done, HistoryBusy, Recent


def applied(version: int, epoch: int = 1) -> Done:
    return Done(Position(epoch, version), version, version + 1, version + 2)


def test_history_finds_applied_entries_and_forgets_the_oldest() -> None:
    history = Recent(3)
    assert history.newest() is None
    history.extend([applied(version) for version in range(1, 3)])
    history.extend([applied(version) for version in range(3, 6)])
    assert history.find(Position(1, 2)) is None
    assert history.find(Position(1, 4)) == applied(4)
    assert history.newest() == applied(5)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("after", range(8))
def test_history_after_a_position_is_the_rest_in_order(count: int, after: int) -> None:
    history = Recent(4)
    history.extend([applied(version) for version in range(1, count + 1)])
    kept = range(max(1, count - 3), count + 1)
    expected = [version for version in kept if version > after]
    assert [found.position.version for found in history.after(Position(1, after), 10)] == expected
    assert [found.position.version for found in history.after(Position(1, after), 2)] == expected[:2]


def test_history_spans_epochs() -> None:
    history = Recent(10)
    history.extend([applied(1), applied(2), applied(0, epoch=2), applied(1, epoch=2)])
    assert [str(found.position) for found in history.after(Position(1, 2), 10)] == ["2-0", "2-1"]


def test_memory_of_the_history_stays_bounded() -> None:
    history, versions = Recent(500), itertools.count(10_000)

    def most(entries: int) -> int:
        tracemalloc.reset_peak()
        for _ in range(entries):
            history.extend([applied(next(versions))])
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        filled = most(2_000)
        assert most(10_000) < filled * 1.1
    finally:
        tracemalloc.stop()


@given(st.lists(st.lists(st.integers(1, 12), max_size=6), max_size=12), st.integers(0, 13))
def test_history_is_the_tail_of_all_applied_entries(batches: list[list[int]], asked: int) -> None:
    history, everything = Recent(4), list[Done]()
    for batch in batches:  # a version can recur, for example after a snapshot
        found = [Done(Position(1, version), 0, 0, len(everything) + n) for n, version in enumerate(batch)]
        history.extend(found)
        everything += found
    kept = everything[-4:]
    latest = {applied.position.version: applied for applied in kept}
    assert history.newest() == (kept[-1] if kept else None)
    assert history.find(Position(1, asked)) == latest.get(asked)
    behind = kept[kept.index(latest[asked]) + 1 :] if asked in latest else kept
    assert history.after(Position(1, asked), 3) == [one for one in behind if one.position.version > asked][:3]
    first = max(asked, len(everything) - len(kept))
    assert history.since(asked, 2, -1) == (everything[first : first + 2], max(asked, min(len(everything), first + 2)))


def test_entries_applied_since_a_count_are_returned_as_soon_as_there_are_any() -> None:
    history = Recent(3)
    assert history.since(0, 10, 0) == ([], 0)
    history.extend([Done(Position(1, version), 0, 0, version) for version in range(1, 6)])
    found, count = history.since(0, 2, 0)
    assert ([applied.done_us for applied in found], count) == ([3, 4], 4)  # of five, three are remembered
    assert [applied.done_us for applied in history.since(count, 10, 0)[0]] == [5]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(history.since, 5, 10, 10)
        history.extend([Done(Position(1, 6), 0, 0, 6)])
        assert waiting.result(5) == ([Done(Position(1, 6), 0, 0, 6)], 6)
    history.close()
    assert history.since(6, 10, 10) == ([], 6)


def test_a_request_beyond_the_bound_on_waiting_requests_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "_WAITING_MAX", 0)
    history = Recent(3)
    with pytest.raises(HistoryBusy):
        history.since(0, 10, 10)
    assert history.since(0, 10, 0) == ([], 0)
