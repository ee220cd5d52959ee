"""Membership: registration, heartbeats, and the settings of a replica."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broker.clock import LogClock
from broker.delay import Fixed
from broker.errors import IdTaken
from broker.events import Events
from broker.position import START, Position
from broker.registry import Member, Registry, Settings
from nodes.replica.membership import Membership


class Registration:
    """A membership, its events, and the settings that it applied."""

    def __init__(self, client: Any) -> None:
        self.registered = Registry(client)
        self.events = Events(client)
        self.applied: list[Settings] = []
        clock = LogClock(lambda: 5_000_000, lambda: 0, lambda: 0)
        self.membership = Membership(
            registered=self.registered,
            events=self.events,
            clock=clock,
            defaults=Settings(Fixed(500), 0),
            describe=lambda: Member("r1", "http://r1:1", "http://127.0.0.1:1", Position(1, 3), clock.now_us(), 0),
            apply=self.applied.append,
        )


def test_a_replica_registers_and_reports_that_it_joined(fake: Any) -> None:
    found = Registration(fake)
    found.membership.step(block_ms=1)
    found.membership.step(block_ms=1)
    (member,) = found.registered.members()
    assert (member.position, member.seen_at_us) == (Position(1, 3), 5_000_000)
    assert [event.fields for event in found.events.after("0-0", 1)] == [{"kind": "joined", "replica": "r1"}]


def test_a_replica_whose_id_is_taken_does_not_register_before_it_is_free(fake: Any) -> None:
    found = Registration(fake)
    other = Member("r1", "http://r1:2", "http://127.0.0.1:2", START, 1_000_000, 0)
    found.registered.heartbeat(other, Settings(Fixed(500), 0))
    with pytest.raises(IdTaken):
        found.membership.step(block_ms=1)
    assert not found.membership.wait_until_registered(0)
    assert found.registered.members() == [other]
    found.registered.forget("r1")
    found.membership.step(block_ms=1)
    assert found.membership.wait_until_registered(0)


def test_settings_are_applied_when_they_change_and_only_then(fake: Any) -> None:
    found = Registration(fake)
    found.membership.step(block_ms=1)
    found.membership.step(block_ms=1)
    changed = Settings(Fixed(7), 8)
    found.registered.set_settings({"r1": changed})
    found.membership.step(block_ms=1)
    assert found.applied == [Settings(Fixed(500), 0), changed]


def test_an_event_ends_the_wait_for_the_next_heartbeat(fake: Any) -> None:
    found = Registration(fake)
    found.membership.step(block_ms=1)
    with ThreadPoolExecutor(1) as threads:
        step = threads.submit(found.membership.step, 60_000)
        found.events.publish("settings", replica="r1")
        step.result(10)
