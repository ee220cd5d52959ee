"""Traces: carried through the log always, recorded and exported only where an OTLP endpoint is configured."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from flask import Flask, has_request_context, request

from broker.entry import Entry
from nodes.config import NodeConfig

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Tracing(Protocol):
    """What the nodes need of tracing."""

    def install(self, app: Flask) -> None:
        """Trace the requests of this app."""

    @contextmanager
    def sending(self) -> Iterator[str]:
        """Append to the log: yields the ``traceparent`` that the entry is to carry, or nothing."""

    def processed(self, entry: Entry, began_us: int, applied_us: int) -> None:
        """Say that a replica has applied an entry, and when."""

    def outgoing(self) -> dict[str, str]:
        """The headers that carry the trace to another node."""


class CarriedTracing:
    """Nothing is recorded; a caller's trace context goes on to the log and to other nodes as it came."""

    def install(self, app: Flask) -> None:
        """Nothing to do."""

    @contextmanager
    def sending(self) -> Iterator[str]:
        """Carry the caller's context."""
        yield self.outgoing().get("traceparent", "")

    def processed(self, entry: Entry, began_us: int, applied_us: int) -> None:
        """Nothing to do."""

    def outgoing(self) -> dict[str, str]:
        """The caller's context, where it is well-formed."""
        given = request.headers.get("traceparent", "") if has_request_context() else ""
        return {"traceparent": given} if _TRACEPARENT.fullmatch(given) else {}


class RecordedTracing:
    """Spans by OpenTelemetry, exported as OTLP over HTTP in the background."""

    def __init__(self, config: NodeConfig) -> None:
        from opentelemetry import propagate, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # Without a collector the exporter would log each failure, and hold up the end of the process.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._propagate = propagate
        self._trace = trace
        self._node_id = config.node_id
        self._stream = f"{config.namespace}:log"
        self._provider = TracerProvider(resource=Resource.create({"service.name": config.node_id}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=1)))
        self._tracer = self._provider.get_tracer("eventual-consistency-lab")

    def install(self, app: Flask) -> None:
        """A server span for each request but the ones that only watch."""
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        instrument: Any = FlaskInstrumentor().instrument_app
        instrument(app, tracer_provider=self._provider, excluded_urls="/health$,/metrics$")

    @contextmanager
    def sending(self) -> Iterator[str]:
        """A PRODUCER span around the append."""
        attributes = self._attributes("send")
        with self._tracer.start_as_current_span(
            f"send {self._stream}", kind=self._trace.SpanKind.PRODUCER, attributes=attributes
        ):
            yield self.outgoing().get("traceparent", "")

    def processed(self, entry: Entry, began_us: int, applied_us: int) -> None:
        """A CONSUMER span in the trace of the write, linked to it too."""
        if not entry.traceparent:
            return
        parent = self._propagate.extract({"traceparent": entry.traceparent})
        link = self._trace.Link(self._trace.get_current_span(parent).get_span_context())
        attributes: dict[str, str | float] = {
            **self._attributes("process"),
            "messaging.consumer.group.name": self._node_id,
            "messaging.message.id": str(entry.position),
            "lab.delay_ms": (applied_us - entry.at_us) / 1000,
        }
        span = self._tracer.start_span(
            f"process {self._stream}",
            parent,
            self._trace.SpanKind.CONSUMER,
            attributes,
            [link],
            start_time=began_us * 1000,
        )
        span.end(end_time=applied_us * 1000)

    def outgoing(self) -> dict[str, str]:
        """The current span's context."""
        headers: dict[str, str] = {}
        self._propagate.inject(headers)
        return headers

    def _attributes(self, operation: str) -> dict[str, str | float]:
        return {
            "messaging.system": "redis",
            "messaging.operation.type": operation,
            "messaging.operation.name": operation,
            "messaging.destination.name": self._stream,
        }


def make(config: NodeConfig) -> Tracing:
    """Tracing as configured."""
    return RecordedTracing(config) if config.tracing else CarriedTracing()
