"""Lines of a node's log: what a request carries cannot forge one, nor reach a terminal."""

from __future__ import annotations

import logging
import sys

import pytest

from nodes.runtime.logs import LineFormatter

FORGED = "2026-11-25 12:00:00,000 ERROR forged"


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


def test_what_is_printable_stays_as_it_is() -> None:
    assert shown("/ü/漢/a b\\n")[0].endswith("lab.test on /ü/漢/a b\\n")


def test_a_line_of_a_stack_trace_cannot_be_taken_for_a_line_of_the_log() -> None:
    first, *rest = shown("/", ValueError(f"bad\n{FORGED}\r{FORGED}"))
    assert first.endswith("on /")
    assert any("Traceback" in line for line in rest)
    assert all(line.startswith("  ") for line in rest)
