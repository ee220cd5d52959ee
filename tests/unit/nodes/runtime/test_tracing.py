"""Traces: always passed on, recorded only if an endpoint is configured."""

import pytest

from broker.entry import Entry
from broker.position import Position
from nodes.runtime import tracing
from nodes.runtime.caller import TRACEPARENT
from nodes.runtime.config import load

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.mark.parametrize(("given", "carried"), [(PARENT, PARENT), ("nonsense", ""), ("", ""), (PARENT.upper(), "")])
def test_without_an_endpoint_a_callers_context_is_forwarded_unchanged(given: str, carried: str) -> None:
    found = tracing.make(load("primary", {}))
    token = TRACEPARENT.set(given)
    with found.sending() as traceparent:
        assert traceparent == carried
        assert found.outgoing() == ({"traceparent": carried} if carried else {})
    TRACEPARENT.reset(token)
    with found.sending() as traceparent:
        assert traceparent == ""


@pytest.mark.parametrize(
    ("flags", "recorded"), [("00", False), ("01", True), ("02", False), ("03", True), ("0a", False), ("0b", True)]
)
def test_an_entry_shows_whether_its_trace_is_recorded(flags: str, *, recorded: bool) -> None:
    entry = Entry(Position(1, 1), "set", "k", "1", "w", 1, f"{PARENT[:-2]}{flags}")
    assert entry.trace_id == ("a" * 32 if recorded else "")
    assert Entry(Position(1, 1), "set", "k", "1", "w", 1).trace_id == ""
