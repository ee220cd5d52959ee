"""Traces: carried always, recorded where an endpoint is configured."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

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


def test_with_an_endpoint_a_write_and_its_application_are_one_trace() -> None:
    spans = InMemorySpanExporter()
    found = tracing.make(load("primary", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}))
    assert isinstance(found, tracing.RecordedTracing)
    found._provider.add_span_processor(SimpleSpanProcessor(spans))
    with found.sending() as traceparent:
        found.sent(Position(1, 7))
    entry = Entry(Position(1, 7), "set", "k", "1", "w", 1_000_000, traceparent)
    found.processed([(entry, 1_500_000)], 1_500_100, 1_500_400)
    send, delay, process = spans.get_finished_spans()
    assert (send.name, send.kind) == ("send lab14:log", SpanKind.PRODUCER)
    assert (process.name, process.kind) == ("process lab14:log", SpanKind.CONSUMER)
    assert process.context is not None
    assert send.context is not None
    assert process.parent is not None
    assert process.context.trace_id == send.context.trace_id
    assert process.parent.span_id == send.context.span_id
    assert process.links[0].context.span_id == send.context.span_id
    assert (process.start_time, process.end_time) == (1_500_100_000, 1_500_400_000)
    assert {dict(span.attributes or {})["messaging.message.id"] for span in (send, delay, process)} == {"1-7"}
    assert dict(process.attributes or {})["lab.lateness_ms"] == 0.4
    assert delay.parent == process.parent
    assert (delay.start_time, delay.end_time) == (1_000_000_000, 1_500_000_000)
    assert dict(delay.attributes or {})["lab.delay_ms"] == 500.0
    found._provider.shutdown()


def test_a_write_beyond_the_limit_of_traces_is_not_recorded_and_carries_an_unsampled_context() -> None:
    spans = InMemorySpanExporter()
    found = tracing.make(load("primary", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}))
    assert isinstance(found, tracing.RecordedTracing)
    found._provider.add_span_processor(SimpleSpanProcessor(spans))
    entries = []
    for version in range(1, 2 * tracing.TRACES_PER_SECOND):
        with found.sending() as traceparent:
            pass
        entries.append(Entry(Position(1, version), "set", "k", "1", "w", 1_000_000, traceparent))
    caller = found._w3c.extract({"traceparent": PARENT})
    assert found._tracer.start_span("of a caller who records it", caller).is_recording()
    begun = len(spans.get_finished_spans())
    assert tracing.TRACES_PER_SECOND <= begun == sum(bool(entry.trace_id) for entry in entries) < len(entries)
    spans.clear()
    found.processed([(entry, 1_500_000) for entry in entries], 1_500_100, 1_500_400)
    assert len(spans.get_finished_spans()) == 2 * begun
    found._provider.shutdown()


def test_the_environment_can_select_every_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_SAMPLER": "always_on"}
    found = tracing.make(load("primary", environment))
    assert isinstance(found, tracing.RecordedTracing)
    for _ in range(2 * tracing.TRACES_PER_SECOND):
        with found.sending() as traceparent:
            assert Entry(Position(1, 1), "set", "k", "1", "w", 1, traceparent).trace_id
    found._provider.shutdown()


@pytest.mark.parametrize(
    ("flags", "recorded"), [("00", False), ("01", True), ("02", False), ("03", True), ("0a", False), ("0b", True)]
)
def test_an_entry_shows_whether_its_trace_is_recorded(flags: str, *, recorded: bool) -> None:
    entry = Entry(Position(1, 1), "set", "k", "1", "w", 1, f"{PARENT[:-2]}{flags}")
    assert entry.trace_id == ("a" * 32 if recorded else "")
    assert Entry(Position(1, 1), "set", "k", "1", "w", 1).trace_id == ""
