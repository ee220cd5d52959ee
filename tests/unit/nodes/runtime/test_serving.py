"""A node's process: the number of requests its open files allow, and its log lines."""

import logging
import resource
import sys

import pytest

from nodes.runtime import serving
from nodes.runtime.serving import LineFormatter, make_room, room_for

FORGED = "2026-11-25 12:00:00,000 ERROR forged"


@pytest.mark.parametrize("limit", [resource.RLIM_INFINITY, 4168, 10**6])
def test_with_enough_files_the_configured_requests_fit(limit: int) -> None:
    assert room_for(512, limit)[:2] == (512, 1512)


@pytest.mark.parametrize("limit", [256, 1024, 4096])
def test_with_fewer_files_fewer_requests_fit(limit: int) -> None:
    room = room_for(512, limit)
    assert 4 < room.requests < 512
    assert room.connections + room.requests * (serving._FILES_PER_REQUEST - 1) + serving._OWN_FILES <= limit


def test_the_limit_is_raised_as_far_as_allowed_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (256, 2000)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.update(now=wanted))
    assert make_room(4).files == serving._OWN_FILES + serving._IDLE + 4 * serving._FILES_PER_REQUEST
    assert make_room(512).files == 2000
    assert limits["now"] == (2000, 2000)


def test_a_system_that_allows_less_than_its_hard_limit_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, _wanted: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert make_room(512).files == 256


def shown(message: str, error: Exception | None = None) -> list[str]:
    failure = None
    if error is not None:
        try:
            raise error
        except type(error):
            failure = sys.exc_info()
    record = logging.LogRecord("lab.test", logging.ERROR, __file__, 1, "on %s", (message,), failure)
    return LineFormatter().format(record).split("\n")


@pytest.mark.parametrize("character", ["\n", "\r", "\x0b", "\x1b", "\x85", "\u2028", "\x00", "\u202e", "\x7f"])
def test_a_message_is_one_line_of_printable_characters(character: str) -> None:
    for line in ("".join(shown(f"/a{character}{FORGED}")), shown("/", ValueError(f"{character}{FORGED}"))[-1]):
        assert character not in line
    (line,) = shown(f"/a{character}{FORGED}")
    assert line.endswith(FORGED)


def test_printable_characters_stay_unchanged() -> None:
    assert shown("/ü/漢/a b\\n")[0].endswith("lab.test on /ü/漢/a b\\n")


def test_a_line_of_a_stack_trace_cannot_be_mistaken_for_a_line_of_the_log() -> None:
    first, *rest = shown("/", ValueError(f"bad\n{FORGED}\r{FORGED}"))
    assert first.endswith("on /")
    assert any("Traceback" in line for line in rest)
    assert all(line.startswith("  ") for line in rest)
