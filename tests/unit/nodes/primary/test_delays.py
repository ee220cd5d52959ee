"""Changes of the replicas' settings."""

from typing import Any

import pytest

from broker.delay.models import Fixed
from broker.registry import Settings
from nodes.primary.delays import DelayBody, DelaysBody, UnknownReplica
from tests.support.primary import Bench


def test_a_change_of_a_delay_is_applied_and_published(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    found = bench.delays.change(DelayBody(replica="a", delay_ms=7, ack_delay_ms=3))
    assert (found["replica_url"], found["delay_ms"], found["all_delays"]) == ("http://a:8001", 7, {"http://a:8001": 7})
    assert bench.registered.settings() == {"a": Settings(Fixed(7), 3)}
    assert [event.fields["kind"] for event in bench.events.after("0-0", 1)] == ["settings"]


def test_a_change_of_the_acknowledgement_delay_keeps_the_delay(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    bench.delays.change(DelayBody(replica="a", ack_delay_ms=3))
    assert bench.registered.settings() == {"a": Settings(Fixed(500), 3)}


def test_of_several_delays_none_is_changed_if_one_is_wrong(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    with pytest.raises(UnknownReplica):
        bench.delays.change_several(DelaysBody(delays={"a": 1, "b": 2}))
    assert bench.registered.settings() == {"a": Settings(Fixed(500), 0)}
