"""The instrument: load, cadence, keys, and every way to end."""

import math
import random
import sys
import threading
from collections.abc import Sequence

import pytest

from lab.probe import brackets, instrument, steps
from lab.probe.instrument import Instrument, Limits, Run
from lab.probe.target import NotNow, Settings, Shown, TargetError
from tests.unit.lab.probe.store import Node, Visible, ends_at, simulate, store

SHORT = Limits(seconds=10.0)
ENDLESS = Limits(writes_per_second=1.0, seconds=math.inf, writes_max=sys.maxsize)


def require_truth(run: Run, replicas: list[Node]) -> None:
    for seen, node in zip(run.replicas, replicas, strict=True):
        for found in seen.brackets:
            visible = node.visible_at(found.number)
            assert found.low <= visible
            assert found.high is None or visible <= found.high


@pytest.mark.parametrize(("delay_seconds", "reads_per_write"), [(0.0, 2), (0.003, 4), (0.2, 12), (3.0, 2)])
def test_the_cadence_is_a_share_of_the_age(delay_seconds: float, reads_per_write: int) -> None:
    primary, replicas = store(lambda _: delay_seconds)
    run = simulate(primary, replicas, SHORT)
    require_truth(run, replicas)
    (seen,) = run.replicas
    widths = sorted(found.high - found.low for found in seen.brackets if found.high is not None)
    assert len(widths) == 100
    assert widths[50] <= max(0.004, 0.08 * delay_seconds)
    assert seen.reads <= reads_per_write * 100
    assert run.ended == ""


def test_nothing_is_read_while_nothing_is_outstanding() -> None:
    primary, replicas = store(lambda _: 0.0)
    run = simulate(primary, replicas, SHORT)
    assert run.replicas[0].reads <= 2 * len(run.writes)


def test_reads_stay_within_their_budget() -> None:
    primary, replicas = store(lambda _: 0.1)
    run = simulate(primary, replicas, Limits(seconds=10.0, writes_per_second=50.0, reads_per_second=20.0))
    assert run.replicas[0].reads <= 20 * (run.seconds + 0.1) + 1
    require_truth(run, replicas)


def test_a_read_of_several_requests_takes_as_much_of_the_budget() -> None:
    primary, replicas = store(lambda _: 3.0)
    replicas[0].requests_per_key = 1
    requests = 0
    read = replicas[0].read

    def counted(keys: Sequence[str]) -> Shown:
        nonlocal requests
        requests += len(keys)
        return read(keys)

    replicas[0].read = counted  # type: ignore[method-assign]
    run = simulate(primary, replicas, Limits(seconds=20.0))
    assert requests <= 100 * (run.seconds + 1)
    require_truth(run, replicas)


def test_the_writes_are_an_open_loop() -> None:
    primary, replicas = store(lambda _: 5.0)
    run = simulate(primary, replicas, SHORT)
    assert [round(write.sent - run.started, 1) for write in run.writes] == [number / 10 for number in range(100)]
    assert max(run.late_seconds) < 0.01


def test_a_late_write_is_sent_at_once_and_its_lateness_recorded() -> None:
    primary, replicas = store(lambda _: 0.0)

    def stall(operation: int) -> None:
        primary.clock.at += 1.0 if operation == 30 else 0.0

    primary.fails = stall
    run = simulate(primary, replicas, SHORT)
    assert len(run.writes) == 100
    assert max(run.late_seconds) == pytest.approx(0.9, abs=0.01)
    assert run.writes[-1].sent - run.started == pytest.approx(9.9, abs=0.01)


def test_a_key_is_written_again_only_when_every_replica_has_shown_it() -> None:
    primary, replicas = store(lambda _: 0.0, lambda _: 1.05)
    run = simulate(primary, replicas, SHORT)
    assert 11 <= len({write.key for write in run.writes}) <= 13
    last: dict[str, int] = {}
    for write in run.writes:
        if write.key in last:
            assert replicas[1].visible_at(last[write.key]) <= write.sent
        last[write.key] = write.number


def test_in_order_of_arrival_the_truth_stays_inside() -> None:
    source = random.Random(3)
    primary, replicas = store(lambda _: source.expovariate(1 / 0.1))
    run = simulate(primary, replicas, Limits(seconds=30.0, writes_per_second=20.0))
    require_truth(run, replicas)
    assert len(run.replicas[0].brackets) == 600


def test_a_write_that_is_never_seen_is_given_up() -> None:
    primary, replicas = store(lambda at: 1e9 if 1002 <= at < 1003 else 0.01)
    run = simulate(primary, replicas, Limits(seconds=10.0, give_up_seconds=2.0))
    unseen = [found for found in run.replicas[0].brackets if found.high is None]
    assert len(unseen) == 10
    assert all(found.window[0] > 1.8 for found in unseen)
    assert run.seconds < 11


def test_reading_continues_until_the_last_write_is_seen() -> None:
    primary, replicas = store(lambda _: 5.0)
    run = simulate(primary, replicas, Limits(seconds=1.0))
    assert all(found.high is not None for found in run.replicas[0].brackets)


def test_too_many_errors_end_the_run() -> None:
    primary, replicas = store(lambda _: 0.0)
    replicas[0].fails = lambda number: NotNow("connection lost") if number % 5 == 0 else None
    run = simulate(primary, replicas, SHORT)
    assert run.ended == "replica1: 4 of 20 reads failed, the last one with: connection lost"
    assert run.replicas[0].errors == 4
    assert run.replicas[0].brackets


def test_a_few_errors_are_counted_and_their_writes_left_out() -> None:
    primary, replicas = store(lambda _: 0.0)
    primary.fails = lambda number: NotNow("busy") if number % 20 == 0 else None
    run = simulate(primary, replicas, SHORT)
    assert (run.ended, run.errors, len(run.writes)) == ("", 5, 100)
    assert len(run.replicas[0].brackets) == 95


def test_a_fatal_error_ends_the_run_and_keeps_the_result() -> None:
    primary, replicas = store(lambda _: 0.0)
    primary.fails = lambda number: TargetError("the disk is full") if number == 50 else None
    run = simulate(primary, replicas, SHORT)
    assert run.ended == "the disk is full"
    assert len(run.replicas[0].brackets) == 49


def test_a_promotion_ends_the_run() -> None:
    primary, replicas = store(lambda _: 0.0)

    def promote(number: int) -> None:
        replicas[0].is_replica = number < 40

    replicas[0].fails = promote
    run = simulate(primary, replicas, SHORT)
    assert run.ended.startswith("replica1 became a primary during the run; ")
    assert run.ended.endswith("clean it up with --primary and --remove")


def test_a_write_that_takes_twice_as_long_ends_the_run() -> None:
    primary, replicas = store(lambda _: 0.0)

    def slow(number: int) -> None:
        primary.clock.at += 0.01 if number > 60 else 0.0

    primary.fails = slow
    run = simulate(primary, replicas, SHORT)
    assert "a write takes 11 ms, at the start 1 ms" in run.ended
    assert 60 < len(run.writes) < 100


def test_writes_that_take_longer_than_their_interval_do_not_go_on_for_ever() -> None:
    primary, replicas = store(lambda _: 0.0, round_trip=0.5)
    run = simulate(primary, replicas, Limits(seconds=5.0))
    assert run.ended == "primary: only 19 of 50 writes in 10 s; choose a lower --rate"


def test_nodes_of_two_stores_are_refused() -> None:
    primary, replicas = store(lambda _: 0.0)
    replicas[0].identity = None
    Instrument(primary, replicas, SHORT)
    replicas[0].identity = "another"
    with pytest.raises(TargetError, match="replica1 is not a replica of primary"):
        Instrument(primary, replicas, SHORT)


def test_in_real_time_the_run_ends_when_it_is_stopped() -> None:
    primary, replicas = store(lambda _: 0.0)
    stop, threads = threading.Event(), threading.active_count()

    def on_step(writes: int) -> None:
        if writes >= 5:
            stop.set()

    run = instrument.run(primary, replicas, Limits(writes_per_second=100.0), stop=stop, on_step=on_step)
    assert run.ended == "it was interrupted"
    assert 5 <= len(run.writes) < 600
    assert threading.active_count() <= threads
    assert primary.statements == ["prepare", "remove"]


def test_what_cannot_be_removed_is_reported_with_the_result() -> None:
    primary, replicas = store(lambda _: 0.0)

    def remove() -> None:
        raise TargetError("the connection is gone")

    primary.remove = remove  # type: ignore[method-assign]
    run = instrument.run(primary, replicas, Limits(writes_per_second=100.0, writes_max=3))
    assert (len(run.writes), run.not_removed) == (3, "the connection is gone")


def test_what_another_probe_has_created_is_not_removed() -> None:
    primary, replicas = store(lambda _: 0.0)

    def prepare() -> None:
        raise TargetError("the schema exists")

    primary.prepare = prepare  # type: ignore[method-assign]
    with pytest.raises(TargetError, match="the schema exists"):
        instrument.run(primary, replicas, SHORT)
    assert primary.statements == []


def test_what_an_earlier_run_left_behind_is_not_taken_for_a_write() -> None:
    primary, replicas = store(lambda _: 0.2)
    replicas[0].log = [Visible(f"k{index:04}", instrument.first_number() - 1, 0.0) for index in range(1, 20)]
    run = simulate(primary, replicas, SHORT)
    require_truth(run, replicas)
    assert run.ended == ""


def test_another_probe_at_the_same_time_ends_the_run() -> None:
    primary, replicas = store(lambda _: 0.2)
    replicas[0].log = [Visible("k0001", instrument.first_number() + 10_000_000, 1003.0)]
    run = simulate(primary, replicas, SHORT)
    assert run.ended == "replica1 shows another probe's writes; only one can run on a store"


def test_a_bug_in_a_thread_is_raised() -> None:
    primary, replicas = store(lambda _: 0.0)
    replicas[0].fails = lambda _: ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        instrument.run(primary, replicas, Limits(writes_per_second=100.0))


def test_an_endless_run_keeps_the_newest_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (brackets, instrument, steps):
        monkeypatch.setattr(module, "KEPT", 20)
    primary, replicas = store(lambda _: 0.2)
    primary.fails = lambda number: NotNow("busy") if number % 10 == 0 else None
    run = simulate(primary, replicas, ENDLESS, ends_at(60))
    (seen,) = run.replicas
    assert run.ended == ""
    assert [len(kept) for kept in (run.writes, run.late_seconds, run.round_trip_seconds)] == [20, 20, 20]
    assert len(seen.round_trip_seconds) == 20
    assert 20 <= len(seen.brackets) <= 21
    assert run.writes[-1].sent - run.started == pytest.approx(59, abs=1.1)
    assert seen.brackets[-1].sent - run.started > 55


def test_the_newest_measurements_are_all_of_a_run_with_an_end() -> None:
    assert Limits(seconds=3600.0, writes_per_second=100.0, writes_max=10_000).writes <= brackets.KEPT


def test_errors_and_slow_writes_do_not_end_an_endless_run() -> None:
    primary, replicas = store(lambda _: 0.0)

    def slow(number: int) -> None:
        primary.clock.at += 0.02 if number > 60 else 0.0

    primary.fails = slow
    replicas[0].fails = lambda _: NotNow("connection refused")
    run = simulate(primary, replicas, ENDLESS, ends_at(120))
    assert run.ended == ""
    assert run.replicas[0].errors == run.replicas[0].reads > 100


@pytest.mark.parametrize("identity", ["one", None, "another"])
def test_a_node_that_belongs_to_another_store_after_an_error_ends_the_run(identity: str | None) -> None:
    primary, replicas = store(lambda _: 0.0)

    def replace(number: int) -> Exception | None:
        if number == 40:
            replicas[0].identity = identity
            return NotNow("connection lost")
        return None

    replicas[0].fails = replace
    run = simulate(primary, replicas, ENDLESS, ends_at(120))
    another = "replica1 belongs to another store since its connection was lost"
    assert run.ended == (another if identity == "another" else "")


def test_the_store_is_checked_again_until_its_settings_can_be_read() -> None:
    primary, replicas = store(lambda _: 0.0)
    asked = 0

    def settings() -> Settings:
        nonlocal asked
        asked += 1
        if asked in {2, 3}:  # the first time is at the start
            raise TargetError("connection lost again")
        return Settings("one")

    replicas[0].settings = settings  # type: ignore[method-assign]
    replicas[0].fails = lambda number: NotNow("connection lost") if number == 40 else None
    assert simulate(primary, replicas, SHORT).ended == ""
    assert asked == 4


def test_after_a_pause_an_endless_run_does_not_send_all_late_writes() -> None:
    primary, replicas = store(lambda _: 0.0)

    def stall(operation: int) -> None:
        primary.clock.at += 600.0 if operation == 30 else 0.0

    primary.fails = stall
    run = simulate(primary, replicas, ENDLESS, ends_at(700))
    assert 30 + 70 <= len(run.writes) <= 30 + 70 + 15  # without a limit, 701


def test_a_stopped_replica_is_the_further_behind_the_longer_it_is_stopped() -> None:
    primary, replicas = store(lambda at: 0.2 if at < 1010 else max(0.2, 1210.2 - at))
    ages: dict[int, float] = {}

    def on_step(run: Instrument) -> None:
        ends_at(250)(run)
        found = run.readers[0].behind()
        if found is not None:
            assert (found.since is None) == (found.writes == 0)
            ages[int(run.now() - 1000)] = 0.0 if found.since is None else run.now() - found.since

    simulate(primary, replicas, ENDLESS, on_step)
    assert ages[100] == pytest.approx(90, abs=2)
    assert ages[200] == pytest.approx(190, abs=2)
    assert ages[240] < 1


def test_how_far_a_replica_that_cannot_be_read_is_behind_is_not_known() -> None:
    primary, replicas = store(lambda _: 0.2)
    replicas[0].fails = lambda _: NotNow("refused") if 1050 <= primary.clock.at < 1100 else None
    known: dict[int, bool] = {}

    def on_step(run: Instrument) -> None:
        ends_at(150)(run)
        known[int(run.now() - 1000)] = run.readers[0].behind() is not None

    simulate(primary, replicas, ENDLESS, on_step)
    unknown = [second for second, is_known in known.items() if not is_known]
    assert unknown[0] in {60, 61}
    assert unknown[-1] in {99, 100}
    assert len(unknown) >= 38
