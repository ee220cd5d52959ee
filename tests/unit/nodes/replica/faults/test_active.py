"""Active faults: shown, reported, and ended after their duration."""

from __future__ import annotations

import pytest

from nodes.replica.faults.active import FaultNotActive
from tests.support.replica import Broken
from tests.support.until import until


def test_a_fault_that_starts_and_ends_is_shown_and_reported(broken: Broken) -> None:
    shown = broken.start(fault="drop_ack", probability=0.5, duration_ms=60_000)
    assert shown["parameters"] == {"probability": 0.5, "duration_ms": 60_000}
    assert broken.faults.names() == ("drop_ack",)
    assert broken.faults.show() == [shown]
    assert broken.faults.end(None) == ["drop_ack"]
    told = [(event.fields["kind"], event.fields["fault"]) for event in broken.events.after("0-0", 1)]
    assert told == [("fault", "drop_ack"), ("fault_ended", "drop_ack")]
    with pytest.raises(FaultNotActive):
        broken.faults.end("drop_ack")


def test_a_fault_ends_after_its_duration_unless_it_was_restarted(broken: Broken) -> None:
    broken.start(fault="pause", duration_ms=50)
    broken.clock.set_skew(1)  # so that the second one starts at another time
    broken.start(fault="pause")
    broken.start(fault="drop_ack", duration_ms=50)
    until(lambda: broken.faults.names() == ("pause",))
    broken.faults._time_is_up("pause", 0)  # the first one's timer, which was waiting for the lock
    assert broken.faults.names() == ("pause",)
