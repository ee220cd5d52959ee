"""Open files: how many requests a limit allows."""

from __future__ import annotations

import resource

import pytest

from nodes.runtime import files
from nodes.runtime.files import make_room, room_for


@pytest.mark.parametrize("limit", [resource.RLIM_INFINITY, 4168, 10**6])
def test_with_enough_files_there_is_room_for_what_is_configured(limit: int) -> None:
    assert room_for(512, limit)[:2] == (512, 1512)


@pytest.mark.parametrize("limit", [256, 1024, 4096])
def test_with_fewer_files_there_is_room_for_what_fits(limit: int) -> None:
    room = room_for(512, limit)
    assert 4 < room.requests < 512
    assert room.connections + room.requests * (files._PER_REQUEST - 1) + files._OWN <= limit


def test_the_limit_is_raised_as_far_as_allowed_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (256, 2000)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.update(now=wanted))
    assert make_room(4).files == files._OWN + files._IDLE + 4 * files._PER_REQUEST
    assert make_room(512).files == 2000
    assert limits["now"] == (2000, 2000)


def test_a_system_that_allows_less_than_it_says_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, _wanted: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert make_room(512).files == 256
