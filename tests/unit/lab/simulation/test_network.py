"""Links between nodes and servers: when, in what order, and whether messages arrive."""

from collections.abc import Callable

import pytest

from lab.simulation import network as links
from lab.simulation.network import Network, Way
from lab.simulation.scheduler import Scheduler

Deliver = Callable[[], None]


def numbered(send: Callable[[Deliver], None], count: int) -> list[int]:
    """Send messages; return the list to which the number of each is added when it arrives."""
    arrived: list[int] = []
    for number in range(count):
        send(lambda number=number: arrived.append(number))  # type: ignore[misc]
    return arrived


def through(network: Network, one: str, other: str) -> Callable[[Deliver], None]:
    return lambda deliver: network.send(one, other, deliver)


def test_messages_overtake_each_other_but_not_on_one_way(network: Network, scheduler: Scheduler) -> None:
    alone, connected = numbered(through(network, "a", "b"), 100), numbered(Way(network, "a", "b").send, 100)
    assert not alone
    assert not connected
    scheduler.run(10)
    assert sorted(alone) == list(range(100)) != alone
    assert connected == list(range(100))


def test_what_is_sent_into_a_cut_link_arrives_once_it_is_mended_or_never(
    network: Network, scheduler: Scheduler
) -> None:
    network.cut("a", "b")
    arrived = numbered(through(network, "a", "b"), 200)
    scheduler.run(3600)
    assert not arrived
    network.mend("a", "b")
    scheduler.run(7200)
    assert 60 < len(arrived) < 140
    assert len(set(arrived)) == len(arrived)
    afterwards = numbered(through(network, "a", "b"), 10)
    scheduler.run(7201)
    assert sorted(afterwards) == list(range(10))


def test_a_cut_in_one_direction_leaves_the_other_and_other_links(network: Network, scheduler: Scheduler) -> None:
    network.cut("a", "b")
    sent = [numbered(through(network, *ends), 10) for ends in (("a", "b"), ("b", "a"), ("a", "c"))]
    scheduler.run(1)
    assert [len(arrived) for arrived in sent] == [0, 10, 10]


def test_nothing_arrives_on_a_way_after_what_is_lost(network: Network, scheduler: Scheduler) -> None:
    complete = 0
    for number in range(40):
        network.cut("a", "b")
        arrived = numbered(Way(network, "a", "b").send, 5)
        network.mend("a", "b")
        scheduler.run(number + 1)
        assert arrived in ([], [0, 1, 2, 3, 4])
        complete += len(arrived) > 0
    assert 10 < complete < 30


def test_a_cut_link_holds_no_more_than_its_bound(
    network: Network, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_HELD_MAX", 7)
    network.cut("a", "b")
    arrived = numbered(through(network, "a", "b"), 100)
    network.mend("a", "b")
    scheduler.run(1)
    assert len(arrived) == 7


def test_messages_from_and_to_a_slow_end_take_longer_until_everything_is_mended(
    network: Network, scheduler: Scheduler
) -> None:
    network.slow["a"] = 5
    for ends in (("a", "b"), ("c", "d")):
        network.cut(*ends)
    slow = [numbered(through(network, *ends), 1) for ends in (("a", "c"), ("c", "a"))]
    held = [numbered(through(network, *ends), 20) for ends in (("a", "b"), ("c", "d"))]
    scheduler.run(4.9)
    assert not any(slow)
    scheduler.run(5.1)
    assert slow == [[0], [0]]
    network.mend_all()
    scheduler.run(16)
    assert all(held)
    network.send("a", "b", slow.clear)
    scheduler.run(16.1)
    assert not slow
