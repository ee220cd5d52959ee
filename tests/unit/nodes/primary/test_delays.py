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
    assert bench.registered.settings() == {"a": Settings(Fixed(7), Fixed(3))}
    assert [event.fields["kind"] for event in bench.events.after("0-0", 1)] == ["settings"]


def test_a_change_of_the_acknowledgement_delay_keeps_the_delay(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    bench.delays.change(DelayBody(replica="a", ack_delay_ms=3))
    assert bench.registered.settings() == {"a": Settings(Fixed(500), Fixed(3))}


@pytest.mark.parametrize("name", ["ack", "read"])
def test_every_delay_can_be_a_constant_or_a_model(fake: Any, name: str) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    model = {"kind": "exponential", "mean_ms": 30}
    for change, expected in (({f"{name}_model": model}, model), ({f"{name}_delay_ms": 2}, {"kind": "fixed", "ms": 2})):
        bench.delays.change(DelayBody.model_validate({"replica": "a", **change}))
        assert getattr(bench.registered.settings()["a"], name).as_json() == expected
        assert bench.delays.show()[f"{name}_models"] == {"http://a:8001": expected}  # type: ignore[literal-required]
    with pytest.raises(ValueError, match=f"either {name}_delay_ms or {name}_model"):
        DelayBody.model_validate({"replica": "a", f"{name}_model": model, f"{name}_delay_ms": 2})


def test_of_several_delays_none_is_changed_if_one_is_wrong(fake: Any) -> None:
    bench = Bench(fake)
    bench.replica("a", 0)
    with pytest.raises(UnknownReplica):
        bench.delays.change_several(DelaysBody(delays={"a": 1, "b": 2}))
    assert bench.registered.settings() == {"a": Settings(Fixed(500), Fixed(0))}
