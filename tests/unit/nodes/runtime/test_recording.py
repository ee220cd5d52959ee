"""Traces recorded by OpenTelemetry, and their sampling."""

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanKind

from broker.entry import Entry
from broker.position import Position
from nodes.runtime import tracing
from nodes.runtime.config import load
from nodes.runtime.recording import TRACES_PER_SECOND, AtMostPerSecond, RecordedTracing

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def recorded(sampler: AtMostPerSecond, asked: int) -> int:
    return sum(
        sampler.should_sample(None, number, "write").decision is Decision.RECORD_AND_SAMPLE for number in range(asked)
    )


def test_every_trace_is_recorded_up_to_the_bound() -> None:
    clock = Clock()
    sampler = AtMostPerSecond(10, clock)
    assert recorded(sampler, 8) == 8
    assert recorded(sampler, 8) == 2
    clock.now += 0.35
    assert recorded(sampler, 8) == 3
    clock.now += 100
    assert recorded(sampler, 100) == 10  # what was not used is not saved up for longer than a second
    assert sampler.get_description() == "at most 10 a second"


def test_a_recorded_trace_keeps_its_initial_attributes() -> None:
    found = AtMostPerSecond(1, Clock()).should_sample(None, 1, "write", attributes={"a": "b"})
    assert dict(found.attributes or {}) == {"a": "b"}


def test_with_an_endpoint_a_write_and_its_application_are_one_trace() -> None:
    spans = InMemorySpanExporter()
    found = tracing.make(load("primary", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}))
    assert isinstance(found, RecordedTracing)
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
    assert isinstance(found, RecordedTracing)
    found._provider.add_span_processor(SimpleSpanProcessor(spans))
    entries = []
    for version in range(1, 2 * TRACES_PER_SECOND):
        with found.sending() as traceparent:
            pass
        entries.append(Entry(Position(1, version), "set", "k", "1", "w", 1_000_000, traceparent))
    caller = found._w3c.extract({"traceparent": PARENT})
    assert found._tracer.start_span("of a caller who records it", caller).is_recording()
    begun = len(spans.get_finished_spans())
    assert TRACES_PER_SECOND <= begun == sum(bool(entry.trace_id) for entry in entries) < len(entries)
    spans.clear()
    found.processed([(entry, 1_500_000) for entry in entries], 1_500_100, 1_500_400)
    assert len(spans.get_finished_spans()) == 2 * begun
    found._provider.shutdown()


def test_the_environment_can_select_every_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_SAMPLER": "always_on"}
    found = tracing.make(load("primary", environment))
    assert isinstance(found, RecordedTracing)
    for _ in range(2 * TRACES_PER_SECOND):
        with found.sending() as traceparent:
            assert Entry(Position(1, 1), "set", "k", "1", "w", 1, traceparent).trace_id
    found._provider.shutdown()
