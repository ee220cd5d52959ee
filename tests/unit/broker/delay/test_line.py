"""The delay line: never early, in log order, bounded, and live."""

from hypothesis import given
from hypothesis import strategies as st

from broker.delay.line import DelayLine, Schedule
from broker.delay.models import Exponential, Fixed, Order
from broker.entry import Entry
from broker.position import Position


def entry(version: int, at_ms: float = 0, *, epoch: int = 1, value: str = "1") -> Entry:
    op = "set" if version else "epoch"
    return Entry(Position(epoch, version), op, "k", value, f"w{version}", round(at_ms * 1000))


def make(delay_ms: float = 500, max_entries: int = 100, max_bytes: int = 10**6) -> DelayLine:
    line = DelayLine(max_entries=max_entries, max_bytes=max_bytes)
    line.set_schedule(Schedule(Fixed(delay_ms)), 0)
    return line


FALLING = (1, 2)  # two successive versions; the first draws the longer delay


def random_line(order: Order) -> DelayLine:
    line = DelayLine(max_entries=100, max_bytes=10**6)
    line.set_schedule(Schedule(Exponential(500), order, seed=2), 0)
    return line


def versions_due(line: DelayLine, now_ms: float, limit: int = 1000) -> list[int]:
    return [found.position.version for found, _ in line.due(round(now_ms * 1000), limit)]


def test_an_entry_is_due_at_its_publish_time_plus_the_delay_and_not_a_microsecond_before() -> None:
    line = make(500)
    line.offer([entry(1, at_ms=1000)])
    assert line.due(1_499_999, 10) == []
    assert line.due(1_500_000, 10) == [(entry(1, at_ms=1000), 1_500_000)]
    assert line.next_due_us() == 1_500_000


def test_any_number_of_entries_can_be_due_at_once() -> None:
    line = make(500, max_entries=1000)
    line.offer([entry(version, at_ms=version / 10) for version in range(1, 501)])
    assert versions_due(line, 551) == list(range(1, 501))


def test_entries_stay_until_they_are_removed() -> None:
    line = make(0)
    line.offer([entry(1), entry(2), entry(3)])
    assert versions_due(line, 0) == versions_due(line, 0) == [1, 2, 3]
    line.take(line.due(0, 2))
    assert versions_due(line, 0) == [3]


def test_a_lower_delay_also_applies_to_waiting_entries() -> None:
    line = make(30_000)
    line.offer([entry(version, at_ms=version) for version in range(1, 101)])
    assert versions_due(line, 2000) == []
    line.set_schedule(Schedule(Fixed(0)), 2_000_000)
    assert versions_due(line, 2000) == list(range(1, 101))


def test_an_entry_that_a_change_makes_due_is_late_only_since_the_change() -> None:
    line = make(30_000)
    line.offer([entry(1, at_ms=0)])
    line.set_schedule(Schedule(Fixed(0)), 2_000_000)
    assert line.due(2_000_000, 1) == [(entry(1), 2_000_000)]


def test_a_higher_delay_also_applies_to_waiting_entries() -> None:
    line = make(500)
    line.offer([entry(1)])
    line.set_schedule(Schedule(Fixed(3000)), 100_000)
    assert versions_due(line, 2999) == []
    assert versions_due(line, 3000) == [1]


def test_nothing_is_due_before_the_delay_is_known() -> None:
    line = DelayLine(max_entries=10, max_bytes=1000)
    line.offer([entry(0), entry(1, at_ms=0)])
    assert (line.due(10**15, 10), line.next_due_us(), line.due_us(entry(1))) == ([], None, None)
    line.set_schedule(Schedule(Fixed(500)), 9_000_000)
    assert line.due(9_000_000, 10) == [(entry(0), 0), (entry(1), 500_000)]  # late since it was due, not since now


def test_setting_the_same_delay_again_changes_nothing() -> None:
    line = make(500)
    line.offer([entry(1)])
    line.set_schedule(Schedule(Fixed(500)), 9_000_000)
    assert line.due(9_000_000, 10) == [(entry(1), 500_000)]


def test_an_entry_is_not_due_before_the_ones_ahead_of_it() -> None:
    line = random_line("log")
    first, second = (line.due_us(entry(version)) or 0 for version in FALLING)
    assert first > second, "drawn for this test"
    line.offer([entry(version) for version in FALLING])
    assert line.due(first - 1, 10) == []
    assert [due_us for _, due_us in line.due(first, 10)] == [first, first]
    line.take(line.due(first, 1))
    assert line.due(first, 10) == [(entry(FALLING[1]), first)], "also when what was ahead has gone"


def test_in_arrival_order_entries_are_due_independently() -> None:
    line = random_line("arrival")
    first, second = (line.due_us(entry(version)) or 0 for version in FALLING)
    line.offer([entry(version) for version in FALLING])
    assert line.next_due_us() == second
    assert line.due(second, 10) == line.due(second, 10) == [(entry(FALLING[1]), second)]
    line.take(line.due(second, 10))
    assert line.next_due_us() == first
    assert line.due(first, 10) == [(entry(FALLING[0]), first)]


def test_a_change_of_order_applies_to_waiting_entries() -> None:
    line = random_line("log")
    line.offer([entry(version) for version in FALLING])
    line.set_schedule(Schedule(Exponential(500), "arrival", seed=2), 0)
    assert line.next_due_us() == line.due_us(entry(FALLING[1]))


def test_in_arrival_order_a_new_epoch_comes_before_its_entries() -> None:
    line = random_line("arrival")
    line.offer([entry(1), entry(2)])
    assert line.offer([entry(0, at_ms=100, epoch=2), entry(1, at_ms=100, epoch=2)]) == [Position(1, 1), Position(1, 2)]
    assert [found.position for found, _ in line.due(10**9, 10)] == [Position(2, 0), Position(2, 1)]


def test_a_new_epoch_invalidates_waiting_entries_and_is_due_immediately() -> None:
    line = make(500)
    line.offer([entry(1), entry(2)])
    assert line.offer([entry(0, at_ms=100, epoch=2)]) == [Position(1, 1), Position(1, 2)]
    assert [found.position for found, _ in line.due(100_000, 10)] == [Position(2, 0)]


def test_room_shrinks_with_entries_and_with_bytes() -> None:
    line = make(max_entries=3)
    line.offer([entry(1), entry(2)])
    assert line.room == 1
    heavy = make(max_entries=100, max_bytes=1000)
    heavy.offer([entry(1, value="x" * 2000)])
    assert heavy.room == 0
    heavy.take(heavy.due(10**9, 1))
    assert heavy.room == 100


def test_a_cleared_line_is_empty() -> None:
    line = make()
    line.offer([entry(1, value="x" * 2000)])
    line.clear()
    assert (len(line), line.room, line.next_due_us()) == (0, 100, None)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 300)),
        st.tuples(st.just("pass"), st.integers(0, 2000)),
        st.tuples(st.just("delay"), st.integers(0, 3000)),
    ),
    max_size=60,
)


@given(steps)
def test_entries_always_leave_in_order_and_as_soon_as_they_are_due(script: list[tuple[str, int]]) -> None:
    """Compare with a naive model: an entry leaves in its turn as soon as its current delay is over."""
    line = make(500, max_entries=1000)
    now_ms, delay_ms, version = 0, 500, 0
    waiting: list[Entry] = []
    for step, number in script:
        if step == "publish":
            version += 1
            new = entry(version, at_ms=now_ms)
            waiting.append(new)
            line.offer([new])
        elif step == "pass":
            now_ms += number
        else:
            delay_ms = number
            line.set_schedule(Schedule(Fixed(number)), now_ms * 1000)
        left = []
        while waiting and waiting[0].at_us // 1000 + delay_ms <= now_ms:
            left.append(waiting.pop(0))
        due = line.due(now_ms * 1000, 1000)
        assert [found for found, _ in due] == left
        assert all(due_us <= now_ms * 1000 for _, due_us in due)
        line.take(due)


def test_a_clock_that_was_ahead_at_a_change_of_the_delay_holds_nothing_back() -> None:
    line = make(delay_ms=500)
    line.offer([entry(1)])
    line.set_schedule(Schedule(Fixed(100)), 3_600_000_000)
    line.take(line.due(3_600_000_000, 10))
    line.offer([entry(2, 10)])
    assert versions_due(line, 110) == []
    line.set_clock(100_000)
    assert versions_due(line, 109) == []
    assert versions_due(line, 110) == [2]
