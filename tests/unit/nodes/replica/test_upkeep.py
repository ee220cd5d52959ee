"""Membership and audits; the test of the fault ``corrupt`` shows what an audit finds."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.clock import LogClock
from broker.delay.models import Fixed
from broker.errors import IdTaken
from broker.position import START, Position
from broker.registry import Member, Settings
from nodes.replica.upkeep import Membership
from tests.support.replica import Bench, Broken


class Registration:
    """A membership, its heartbeats, and the settings that it has made active."""

    def __init__(self, client: Any, directory: Path) -> None:
        self.bench = Bench(client, directory)
        self.registered = self.bench.parts.registry
        self.events = self.bench.parts.events
        self.applied: list[Settings] = []
        clock = LogClock(lambda: 5_000_000, lambda: 0, lambda: 0)
        self.membership = Membership(
            replace(self.bench.parts, clock=clock),
            lambda: Member("r1", "http://r1:1", "http://127.0.0.1:1", Position(1, 3), clock.now_us(), 0),
            self.applied.append,
        )


@pytest.fixture
def found(fake: Any, tmp_path: Path) -> Iterator[Registration]:
    registration = Registration(fake, tmp_path)
    yield registration
    registration.bench.close()


def test_a_replica_registers_and_announces_that_it_joined(found: Registration) -> None:
    found.membership.step(block_ms=1)
    found.membership.step(block_ms=1)
    (member,) = found.registered.members()
    assert (member.position, member.seen_at_us) == (Position(1, 3), 5_000_000)
    assert [event.fields for event in found.events.after("0-0", 1)] == [{"kind": "joined", "replica": "r1"}]


def test_a_replica_whose_id_is_taken_does_not_register_before_it_is_free(found: Registration) -> None:
    other = Member("r1", "http://r1:2", "http://127.0.0.1:2", START, 1_000_000, 0)
    found.registered.heartbeat(other, Settings(Fixed(500), Fixed(0)))
    with pytest.raises(IdTaken):
        found.membership.step(block_ms=1)
    assert not found.membership.registered.is_set()
    assert found.registered.members() == [other]
    found.registered.forget("r1")
    found.membership.step(block_ms=1)
    assert found.membership.registered.is_set()


def test_settings_become_active_when_they_change_and_only_then(found: Registration) -> None:
    found.membership.step(block_ms=1)
    found.membership.step(block_ms=1)
    changed = Settings(Fixed(7), Fixed(8))
    found.registered.set_settings({"r1": changed})
    found.membership.step(block_ms=1)
    assert found.applied == [Settings(Fixed(500), Fixed(0)), changed]


def test_an_event_ends_the_wait_for_the_next_heartbeat(found: Registration) -> None:
    found.membership.step(block_ms=1)
    with ThreadPoolExecutor(1) as threads:
        step = threads.submit(found.membership.step, 60_000)
        found.events.publish("settings", replica="r1")
        step.result(10)


def test_large_contents_are_audited_less_often(broken: Broken) -> None:
    times = iter([0.0, 3.0])
    assert broken.audit(lambda: next(times)).step() == 150
