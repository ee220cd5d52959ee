"""The acknowledged writes that a log has lost are named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from broker.errors import LogUnreachable
from broker.position import Position
from nodes.primary.losses import Lost, Positions, Run
from tests.support import fake as fakes
from tests.support.primary import Bench


def lose(client: Any, bench: Bench, last: int) -> None:
    """Let another server take over that lacks every entry after this version of the first epoch."""
    head = bench.log.head().position
    client.delete("lab14:log")
    client.xadd("lab14:log", {"op": "set"}, id=f"1-{last}")
    client.hset("lab14:head", mapping={"version": last})
    fakes.restart(client, replaced="ab")
    assert head > bench.log.head().position


def write(bench: Bench, *numbers: int) -> None:
    from nodes.http.writing import WriteBody

    for number in numbers:
        bench.writes.set(WriteBody(key="k", value=number), f"w{number}")


def test_lost_writes_are_counted_named_announced_and_shown_for_a_while(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    write(bench, *range(1, 11))
    lose(fake, bench, 7)
    write(bench, 11)
    assert bench.log.head().position == Position(2, 8)
    bench.upkeep()
    assert bench.published("lost") == [{"kind": "lost", "count": "3", "positions": "1-8 to 1-10", "after": "1-7"}]
    assert b"ec_lost_writes_total 3.0" in generate_latest(bench.registry)
    (said,) = bench.losses.recent()
    assert said == "the log lost 3 acknowledged writes, 1-8 to 1-10: it ended at 1-7 when another server took over"
    bench.now_seconds += 301
    assert bench.losses.recent() == []
    bench.upkeep()
    assert len(bench.published("lost")) == 1


def test_a_reply_that_came_late_is_counted_too(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    write(bench, 1, 2)
    lose(fake, bench, 1)
    write(bench, 3)
    bench.upkeep()
    bench.losses.acknowledged.append(Position(1, 3))
    bench.upkeep()
    assert [event["positions"] for event in bench.published("lost")] == ["1-2", "1-3"]


def test_a_reset_loses_nothing(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    write(bench, 1, 2)
    bench.primary.reset()
    bench.upkeep()
    assert bench.published("lost") == []


def test_a_failover_that_lost_nothing_names_nothing(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    write(bench, 1, 2)
    fakes.restart(fake, replaced="ab")
    write(bench, 3)
    bench.upkeep()
    assert bench.log.head().position == Position(2, 3)
    assert [event["reason"] for event in bench.published("epoch")] == [
        "the log server was replaced, and the writes before that may not all have reached this one"
    ]
    assert bench.published("lost") == []


def test_the_event_names_every_lost_write_also_between_those_of_another_primary(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    for number in range(50):
        write(bench, number)
        bench.log.append("set", "k", "1", f"other-{number}")
    lose(fake, bench, 0)
    write(bench, 1000)
    bench.upkeep()
    (event,) = bench.published("lost")
    assert (event["count"], event["positions"]) == ("50", ", ".join(f"1-{2 * n + 1}" for n in range(50)))
    assert "and 30 more ranges" in bench.losses.recent()[0]


def test_losses_are_named_again_until_the_event_is_published(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(fake)
    bench.upkeep()
    write(bench, 1, 2)
    lose(fake, bench, 1)
    write(bench, 3)
    publish = bench.events.publish

    def refuse(*_: Any, **__: Any) -> None:
        raise LogUnreachable("gone again")

    monkeypatch.setattr(bench.events, "publish", refuse)
    with pytest.raises(LogUnreachable):
        bench.upkeep()
    monkeypatch.setattr(bench.events, "publish", publish)
    bench.upkeep()
    bench.upkeep()
    assert [event["positions"] for event in bench.published("lost")] == ["1-2"]
    assert b"ec_lost_writes_total 1.0" in generate_latest(bench.registry)


def test_an_event_that_a_failover_lost_is_published_again_and_counted_once(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    write(bench, 1, 2)
    lose(fake, bench, 1)
    write(bench, 3)
    bench.upkeep()
    fake.delete("lab14:events")
    bench.upkeep()
    assert bench.published("lost") == [], "nothing has taken over since"
    fakes.restart(fake, replaced="cd")
    write(bench, 4)
    for _ in range(2):
        bench.upkeep()
        assert [event["positions"] for event in bench.published("lost")] == ["1-2"]
    assert b"ec_lost_writes_total 1.0" in generate_latest(bench.registry)


def test_a_former_master_that_is_master_again_has_not_lost_what_it_has(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    write(bench, 1, 2, 3)
    fields = fake.xrange("lab14:log", "1-3")[0][1]
    lose(fake, bench, 1)
    write(bench, 4)
    bench.upkeep()
    fake.delete("lab14:log", "lab14:events")
    fake.xadd("lab14:log", fields, id="1-4")
    fake.hset("lab14:head", mapping={"epoch": 1, "version": 4})
    bench.losses.acknowledged.extend([Position(1, 4)])
    bench.upkeep()
    bench.upkeep()
    assert bench.log.head().position == Position(3, 4)
    assert [event["positions"] for event in bench.published("lost")] == ["1-2 to 1-3", "2-2"]


def test_an_epoch_that_is_back_in_the_log_lacks_what_it_lacked_before(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    write(bench, 1, 2)
    lose(fake, bench, 1)
    write(bench, 3)
    bench.upkeep()
    second = fake.xrange("lab14:log"), fake.hgetall("lab14:head")
    fake.delete("lab14:log")
    fake.xadd("lab14:log", {**second[0][0][1]}, id="1-2")
    fake.hset("lab14:head", mapping={"epoch": 1, "version": 2})
    bench.upkeep()
    assert bench.log.head().position == Position(3, 2)
    bench.losses.acknowledged.extend([Position(1, 3)])  # by that server, before the next one took over
    fake.delete("lab14:log")
    for name, fields in second[0]:
        fake.xadd("lab14:log", fields, id=name)
    fake.hset("lab14:head", mapping=second[1])
    bench.upkeep()
    assert bench.log.head().position == Position(4, 2)
    assert "1-3" in [event["positions"] for event in bench.published("lost")]


def test_what_is_lost_before_the_first_look_is_named(fake: Any) -> None:
    bench = Bench(fake)
    bench.log.open("o")
    write(bench, 1, 2)
    lose(fake, bench, 1)
    write(bench, 3)
    bench.upkeep()
    assert [event["positions"] for event in bench.published("lost")] == ["1-2"]


def test_a_head_of_another_server_than_the_entries_hides_no_loss(fake: Any) -> None:
    bench = Bench(fake)
    bench.upkeep()
    write(bench, 1, 2)
    bench.losses.find(Position(2, 1))
    lose(fake, bench, 1)
    write(bench, 3)
    bench.upkeep()
    assert [event["positions"] for event in bench.published("lost")] == ["1-2"]


positions = st.lists(st.builds(Position, st.integers(1, 3), st.integers(1, 30)), unique=True)


@given(positions, st.builds(Position, st.integers(1, 3), st.integers(0, 30)), st.integers(1, 4))
def test_runs_are_exact_in_any_order(added: list[Position], after: Position, epoch: int) -> None:
    found = Positions()
    found.add(added)
    lost = [Position(run.epoch, n) for run in found.cut(after, epoch) for n in range(run.first, run.last + 1)]
    assert lost == sorted(one for one in added if one > after and one.epoch < epoch)
    again = found.cut(Position(0, 0), 9)
    assert [Position(run.epoch, n) for run in again for n in range(run.first, run.last + 1)] == sorted(
        set(added) - set(lost)
    )


@pytest.mark.parametrize(("count", "more"), [(20, ""), (22, " and 2 more ranges")])
def test_many_ranges_are_summarized(count: int, more: str) -> None:
    lost = Lost([Run(1, 3 * n, 3 * n) for n in range(count)], Position(1, 0))
    assert lost.positions().endswith(f"1-57{more}")
    assert lost.writes == count
