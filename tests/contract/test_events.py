"""The contract of events, over the fake and over every real server."""

from __future__ import annotations

from typing import Any

from broker.events import Events


def test_events_come_once_and_in_order(client: Any) -> None:
    events = Events(client)
    before = events.last_id()
    events.publish("settings", replica="r1")
    events.publish("reset", position="2-0")
    found = events.after(before, 1)
    assert [event.fields["kind"] for event in found] == ["settings", "reset"]
    assert events.after(found[-1].id, 1) == []
    assert events.last_id() == found[-1].id
