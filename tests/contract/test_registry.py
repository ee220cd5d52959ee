"""The contract of the registry and of events, over the fake and over every real server."""

from typing import Any

import pytest

from broker.delay.models import Fixed
from broker.errors import IdTaken
from broker.position import START, Position
from broker.registry import Events, Member, Registry, Settings

DEFAULTS = Settings(Fixed(500), Fixed(0))


def member(replica: str = "r1", position: Position = START, seen_at_us: int = 0) -> Member:
    return Member(replica, f"http://{replica}:8001", "http://127.0.0.1:8001", position, seen_at_us, 0)


@pytest.fixture
def registered(client: Any) -> Registry:
    return Registry(client)


def test_the_first_heartbeat_registers_with_the_defaults(registered: Registry) -> None:
    assert registered.heartbeat(member(), DEFAULTS) == (DEFAULTS, True)
    assert registered.heartbeat(member(), Settings(Fixed(9), Fixed(9))) == (DEFAULTS, False)
    assert registered.members() == [member()]


def test_settings_outlive_the_process_of_their_replica(registered: Registry) -> None:
    registered.heartbeat(member(), DEFAULTS)
    changed = Settings(Fixed(1.5), Fixed(20))
    registered.set_settings({"r1": changed})
    assert registered.heartbeat(member(), DEFAULTS) == (changed, False)
    assert registered.settings() == {"r1": changed}


def test_a_forgotten_replica_is_gone_with_its_settings(registered: Registry) -> None:
    registered.heartbeat(member(), DEFAULTS)
    assert registered.forget("r1")
    assert not registered.forget("r1")
    assert (registered.members(), registered.settings()) == ([], {})


def test_an_id_is_taken_while_a_replica_at_another_address_is_live(registered: Registry) -> None:
    registered.require_free(member())
    registered.heartbeat(member(), DEFAULTS)
    registered.require_free(member(seen_at_us=1))  # the same replica, started again
    with pytest.raises(IdTaken, match=r"r1 is taken: .* http://127[.]0[.]0[.]1:8001"):
        registered.require_free(member(seen_at_us=5_000_000)._replace(url="http://127.0.0.1:9001"))
    registered.require_free(member(seen_at_us=5_000_001)._replace(url="http://127.0.0.1:9001"))


def test_a_member_is_live_for_five_seconds() -> None:
    assert member(seen_at_us=0).is_live(5_000_000)
    assert not member(seen_at_us=0).is_live(5_000_001)


def test_events_come_once_and_in_order(client: Any) -> None:
    events = Events(client)
    before = events.last_id()
    events.publish("settings", replica="r1")
    events.publish("reset", position="2-0")
    found = events.after(before, 1)
    assert [event.fields["kind"] for event in found] == ["settings", "reset"]
    assert events.after(found[-1].id, 1) == []
    assert events.last_id() == found[-1].id
