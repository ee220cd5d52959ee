"""Traces: always carried through the log, recorded and exported only if an OTLP endpoint is configured."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from broker.entry import Entry
from broker.position import Position
from nodes.runtime.caller import TRACEPARENT
from nodes.runtime.config import NodeConfig

TRACES_PER_SECOND = 200
_EXPORT_SECONDS = 1
_MESSAGE_ID = "messaging.message.id"
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Tracing:
    """Records nothing, but forwards a caller's trace context unchanged to the log and to other nodes."""

    def install(self, app: Any) -> None:
        """Trace the requests of this Flask app."""

    @contextmanager
    def sending(self) -> Iterator[str]:
        """Append to the log: yield the ``traceparent`` of the entry, or an empty text."""
        yield self.outgoing().get("traceparent", "")

    def sent(self, position: Position) -> None:
        """Record, while ``sending``, where the entry is in the log."""

    def processed(self, due: Sequence[tuple[Entry, int]], started_us: int, applied_us: int) -> None:
        """Record that a replica has applied entries, each with when it was due.

        Times are microseconds since 1970 by the log's clock.
        """

    def outgoing(self) -> dict[str, str]:
        given = TRACEPARENT.get()
        return {"traceparent": given} if _TRACEPARENT.fullmatch(given) else {}

    def flush(self) -> None:
        """Export what is recorded, or give up within a second."""


class RecordedTracing(Tracing):
    """Spans by OpenTelemetry, exported as OTLP over HTTP in the background.

    A node starts at most 200 traces a second, unless ``OTEL_TRACES_SAMPLER`` is set; a trace that another node has
    started is recorded if that node decided so.
    """

    def __init__(self, config: NodeConfig) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from nodes.runtime.sampler import AtMostPerSecond

        # Without a collector the exporter would log each failure, and delay the end of the process.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._w3c = TraceContextTextMapPropagator()  # the log carries a traceparent and nothing else
        self._trace = trace
        self._node_id = config.node_id
        self._stream = f"{config.namespace}:log"
        sampler = ParentBased(AtMostPerSecond(TRACES_PER_SECOND, time.monotonic)) if config.traces_bounded else None
        self._provider = TracerProvider(sampler, Resource.create({"service.name": config.node_id}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_EXPORT_SECONDS)))
        self._tracer = self._provider.get_tracer("eventual-consistency-lab")

    def install(self, app: Any) -> None:
        """Record a server span for each request except those that only monitor.

        It has the attributes of the stable HTTP conventions, unless the environment selects others; by default the
        instrumentation uses the old ones, which are more and cost more.
        """
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        instrument: Any = FlaskInstrumentor().instrument_app
        instrument(app, tracer_provider=self._provider, excluded_urls="/health$,/metrics$", enable_commenter=False)

    @contextmanager
    def sending(self) -> Iterator[str]:
        attributes = self._attributes("send")
        with self._tracer.start_as_current_span(
            f"send {self._stream}", kind=self._trace.SpanKind.PRODUCER, attributes=attributes
        ):
            yield self.outgoing().get("traceparent", "")

    def sent(self, position: Position) -> None:
        self._trace.get_current_span().set_attribute(_MESSAGE_ID, str(position))

    def processed(self, due: Sequence[tuple[Entry, int]], started_us: int, applied_us: int) -> None:
        """Record the delay as a span of its own, and a CONSUMER span, both in the trace of the write.

        The CONSUMER span is the PRODUCER's child and also linked to it: the messaging conventions prefer the link, but
        only a child appears in one trace with its cause.
        """
        for entry, due_us in due:
            if entry.trace_id:
                self._processed(entry, due_us, started_us, applied_us)

    def _processed(self, entry: Entry, due_us: int, started_us: int, applied_us: int) -> None:
        parent = self._w3c.extract({"traceparent": entry.traceparent})
        link = self._trace.Link(self._trace.get_current_span(parent).get_span_context())
        common: dict[str, str | float] = {_MESSAGE_ID: str(entry.position)}
        delay = self._tracer.start_span(
            f"delay {self._stream}",
            parent,
            attributes={**common, "lab.delay_ms": (due_us - entry.at_us) / 1000},
            start_time=entry.at_us * 1000,
        )
        delay.end(end_time=due_us * 1000)
        process = self._tracer.start_span(
            f"process {self._stream}",
            parent,
            self._trace.SpanKind.CONSUMER,
            {
                **common,
                **self._attributes("process"),
                "messaging.consumer.group.name": self._node_id,
                "lab.lateness_ms": (applied_us - due_us) / 1000,
            },
            [link],
            start_time=started_us * 1000,
        )
        process.end(end_time=applied_us * 1000)

    def outgoing(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        self._w3c.inject(headers)
        return headers

    def flush(self) -> None:
        """Empty the queue: otherwise the process would wait at its end for a collector that does not answer."""
        self._provider.force_flush(_EXPORT_SECONDS * 1000)

    def _attributes(self, operation: str) -> dict[str, str | float]:
        return {
            "messaging.system": "redis",
            "messaging.operation.type": operation,
            "messaging.operation.name": operation,
            "messaging.destination.name": self._stream,
        }


def make(config: NodeConfig) -> Tracing:
    return RecordedTracing(config) if config.tracing else Tracing()
