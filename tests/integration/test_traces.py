"""Traces on a real lab: one trace from a request through the log to every acknowledgement; a missing collector."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lab.local.supervisor import Lab
from tests.integration.conftest import DELAYS_MS, converge, running_lab, set_delays
from tests.support.http import POOL, post
from tests.support.otlp import Collector
from tests.support.until import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_ACK_DELAY_MS = 50
MakeLab = Callable[[str | None], AbstractContextManager[Lab]]


@pytest.fixture
def make_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeLab:
    """Make a lab that exports its traces to an endpoint, or does not export."""

    def make(endpoint: str | None) -> AbstractContextManager[Lab]:
        if endpoint is not None:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        return running_lab(tmp_path / str(endpoint is None))

    return make


def attributes(span: Span) -> dict[str, Any]:
    return {found.key: getattr(found.value, found.value.WhichOneof("value")) for found in span.attributes}


def test_one_write_is_one_trace_from_the_request_to_every_acknowledgement(make_lab: MakeLab) -> None:
    with Collector() as collector, make_lab(collector.url) as lab:
        set_delays(lab, *DELAYS_MS)
        for replica in lab.replica_urls:
            post(f"{lab.primary_url}/admin/replication-delay", {"replica": replica, "ack_delay_ms": _ACK_DELAY_MS})
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        body = b'{"key": "k", "value": 1}'
        answer = POOL.request("POST", f"{lab.client_url}/write-and-wait", body=body, headers=headers).json()
        until(lambda: len(collector.trace(TRACE)) >= 9, 30)
        spans = collector.trace(TRACE)
    request, send = spans["lab14-primary", "POST /data"], spans["lab14-primary", "send lab14:log"]
    assert request.parent_span_id == spans["lab14-client", "POST /write-and-wait"].span_id
    assert (send.parent_span_id, send.kind) == (request.span_id, Span.SPAN_KIND_PRODUCER)
    assert attributes(send)["messaging.message.id"] == answer["write_result"]["position"]
    for replica, delay_ms in zip(("lab14-replica1", "lab14-replica2"), DELAYS_MS, strict=True):
        delay, process = spans[replica, "delay lab14:log"], spans[replica, "process lab14:log"]
        assert (process.parent_span_id, process.kind) == (send.span_id, Span.SPAN_KIND_CONSUMER)
        assert process.links[0].span_id == send.span_id
        assert attributes(process)["messaging.consumer.group.name"] == replica
        assert attributes(process)["messaging.message.id"] == answer["write_result"]["position"]
        assert delay.parent_span_id == send.span_id
        assert delay.end_time_unix_nano - delay.start_time_unix_nano == delay_ms * 1_000_000
        assert process.start_time_unix_nano >= delay.end_time_unix_nano
        acknowledge = spans[replica, "acknowledge lab14:log"]
        assert acknowledge.parent_span_id == send.span_id
        assert attributes(acknowledge)["messaging.operation.type"] == "settle"
        assert attributes(acknowledge)["messaging.message.id"] == answer["write_result"]["position"]
        assert acknowledge.start_time_unix_nano >= process.start_time_unix_nano
        assert acknowledge.end_time_unix_nano - acknowledge.start_time_unix_nano >= _ACK_DELAY_MS * 1_000_000
        print(f"\n{replica}: {attributes(delay)['lab.delay_ms']} ms, late {attributes(process)['lab.lateness_ms']} ms")


def writes_and_stop(lab: AbstractContextManager[Lab]) -> tuple[float, float, int]:
    """Return the median of 100 writes in milliseconds, the seconds to stop the lab, and its nodes' lines of log."""
    with lab as running:
        set_delays(running, *DELAYS_MS)
        took_ms = []
        for number in range(100):
            began = time.perf_counter()
            post(f"{running.primary_url}/data", {"key": "k", "value": number})
            took_ms.append((time.perf_counter() - began) * 1000)
        converge(running)
        began = time.monotonic()
    stop_seconds = time.monotonic() - began
    said = [log.read_text().splitlines() for log in (running.data_dir / "logs").glob("lab14-[prc]*.log")]
    # A replica can start before the log exists and log that.
    lines = [line for node in said for line in node if not line.endswith(("holds no log yet", " recovered"))]
    return statistics.median(took_ms), stop_seconds, len(lines)


@pytest.mark.alone
def test_a_missing_collector_neither_slows_the_lab_nor_fills_its_log_nor_delays_its_stop(make_lab: MakeLab) -> None:
    without = writes_and_stop(make_lab(None))
    dead = writes_and_stop(make_lab("http://127.0.0.1:9"))
    for name, (write_ms, stop_seconds, lines) in {"tracing off": without, "collector down": dead}.items():
        print(f"\n{name}: write {write_ms:.2f} ms, stop {stop_seconds:.1f} s, {lines} lines of log")
    assert dead[0] < 5 * without[0] + 20
    assert dead[1] < without[1] + 5, "it did not wait for the exporter's own deadline of 10 s"
    assert dead[2] <= without[2] + 5
