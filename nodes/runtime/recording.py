"""Traces recorded by OpenTelemetry; imported only if an OTLP endpoint is configured."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from broker.entry import Entry, trace_id
from broker.position import Position
from nodes.runtime.config import NodeConfig
from nodes.runtime.tracing import Acknowledged, Tracing

TRACES_PER_SECOND = 200
_EXPORT_SECONDS = 1
_MESSAGE_ID = "messaging.message.id"


class AtMostPerSecond(Sampler):
    """A token bucket of one second. Without it a busy node would spend half its time on traces. Thread-safe."""

    def __init__(self, per_second: int, monotonic: Callable[[], float]) -> None:
        self._per_second, self._monotonic = per_second, monotonic
        self._left = float(per_second)
        self._filled_at = monotonic()
        self._lock = threading.Lock()

    @override
    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, kind: Any = None, attributes: Any = None, *_: Any, **o: Any
    ) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes) if self._take() else SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return f"at most {self._per_second} a second"

    def _take(self) -> bool:
        with self._lock:
            now = self._monotonic()
            self._left = min(self._per_second, self._left + (now - self._filled_at) * self._per_second)
            self._filled_at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


class RecordedTracing(Tracing):
    """Spans by OpenTelemetry. The node that starts a trace decides whether it is recorded."""

    def __init__(self, config: NodeConfig) -> None:
        # Without a collector the exporter would log each failure and delay the process's exit.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._w3c = TraceContextTextMapPropagator()  # the log carries only a traceparent
        self._node_id = config.node_id
        self._stream = f"{config.namespace}:log"
        sampler = ParentBased(AtMostPerSecond(TRACES_PER_SECOND, time.monotonic)) if config.traces_bounded else None
        self._provider = TracerProvider(sampler, Resource.create({"service.name": config.node_id}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_EXPORT_SECONDS)))
        self._tracer = self._provider.get_tracer("eventual-consistency-lab")

    def install(self, app: Any) -> None:
        """Record a server span for each request except monitoring requests."""
        # By default the instrumentation uses the old HTTP conventions, which have more attributes and cost more.
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        instrument: Any = FlaskInstrumentor().instrument_app
        instrument(app, tracer_provider=self._provider, excluded_urls="/health$,/metrics$", enable_commenter=False)

    @contextmanager
    def sending(self) -> Iterator[str]:
        name, attributes = f"send {self._stream}", self._attributes("send")
        with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes):
            yield self.outgoing().get("traceparent", "")

    def sent(self, position: Position) -> None:
        trace.get_current_span().set_attribute(_MESSAGE_ID, str(position))

    def processed(self, due: Sequence[tuple[Entry, int]], started_us: int, applied_us: int) -> None:
        """Record a span for the delay and a CONSUMER span, both in the trace of the write.

        The CONSUMER span is the PRODUCER's child and also linked to it: the messaging conventions prefer the link, but
        only a child appears in one trace with its cause.
        """
        for entry, due_us in due:
            if entry.trace_id:
                self._processed(entry, due_us, started_us, applied_us)

    def _processed(self, entry: Entry, due_us: int, started_us: int, applied_us: int) -> None:
        parent = self._w3c.extract({"traceparent": entry.traceparent})
        link = Link(trace.get_current_span(parent).get_span_context())
        message: dict[str, str | float] = {_MESSAGE_ID: str(entry.position)}
        delayed = message | {"lab.delay_ms": (due_us - entry.at_us) / 1000}
        at_ns = entry.at_us * 1000
        delay = self._tracer.start_span(f"delay {self._stream}", parent, attributes=delayed, start_time=at_ns)
        delay.end(end_time=due_us * 1000)
        attributes = message | self._attributes("process")
        attributes |= {"messaging.consumer.group.name": self._node_id, "lab.lateness_ms": (applied_us - due_us) / 1000}
        name, start_ns = f"process {self._stream}", started_us * 1000
        process = self._tracer.start_span(name, parent, SpanKind.CONSUMER, attributes, [link], start_time=start_ns)
        process.end(end_time=applied_us * 1000)

    def acknowledged(self, entries: Sequence[Acknowledged], acknowledged_us: int) -> None:
        attributes = self._attributes("settle") | {"messaging.operation.name": "acknowledge"}
        attributes["messaging.consumer.group.name"] = self._node_id
        for entry in entries:
            if trace_id(entry.traceparent):
                parent = self._w3c.extract({"traceparent": entry.traceparent})
                of_entry = attributes | {_MESSAGE_ID: str(entry.position)}
                name, start_ns = f"acknowledge {self._stream}", entry.at_us * 1000
                span = self._tracer.start_span(name, parent, SpanKind.CLIENT, of_entry, start_time=start_ns)
                span.end(end_time=acknowledged_us * 1000)

    def outgoing(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        self._w3c.inject(headers)
        return headers

    def flush(self) -> None:
        """Empty the queue: otherwise the exiting process would wait for an unresponsive collector."""
        self._provider.force_flush(_EXPORT_SECONDS * 1000)

    def _attributes(self, operation: str) -> dict[str, str | float]:
        return {
            "messaging.system": "redis",
            "messaging.operation.type": operation,
            "messaging.operation.name": operation,
            "messaging.destination.name": self._stream,
        }
