"""Exports an endless run to Prometheus, with the names of the lab's metrics, so that its dashboard shows it."""

import json
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from typing_extensions import override
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

from lab.errors import LabError
from lab.probe.brackets import Bracket, Write
from lab.probe.instrument import Instrument
from lab.probe.observer import Observer
from lab.probe.target import NotNow, Target
from nodes.client.metrics import WINDOW
from nodes.primary.metrics import APPLIED, LAG, LAG_VERSIONS, VERSION, WRITE, WRITES, by_replica
from nodes.replica.metrics import DELAY
from nodes.runtime.metrics import SECONDS_BUCKETS, Metric

HOST, PORT = "127.0.0.1", 9109
PROBE = "probe"  # the role in the table of metrics
_CONNECTIONS_MAX = 16
_REQUEST_SECONDS = 5  # to receive a request, and to send its answer
_LABEL_MAX = 60  # characters
_HOST_IN_KEYWORDS = re.compile(r"\b(?:host|service)\s*=\s*'?([^\s']+)")
_PORT_IN_KEYWORDS = re.compile(r"\bport\s*=\s*'?(\d+)")
_PORT_MAX = 65_535
_JSON = "application/json"
_WRITE = ("write", "")
# fmt: off
_BRACKET = Metric(Histogram, "ec_probe_bracket_seconds",
                  "time between the sending of the last stale read of a write and the receipt of its first fresh one",
                  (PROBE,), ("replica",), SECONDS_BUCKETS)
_ERRORS = Metric(Counter, "ec_probe_errors_total", "failed operations of the probe, by `operation`: read, write",
                 (PROBE,), ("operation", "replica"))
# fmt: on


def labels(names: Sequence[str]) -> list[str]:
    """Return a short and unique name for each address: its host and port."""
    found: list[str] = []
    for name in names:
        short = _place(name)[:_LABEL_MAX]
        found.append(short if short not in found else f"{short}-{len(found) + 1}")
    return found


def _place(address: str) -> str:
    if url := re.search(r"\w+://[^\s]+", address):
        return urlsplit(url[0]).netloc.rpartition("@")[2] or address
    host, port = _HOST_IN_KEYWORDS.search(address), _PORT_IN_KEYWORDS.search(address)
    return ":".join(found[1] for found in (host, port) if found) or address


class Exporter(Observer):
    """The metrics of a run. Versions count its writes from 1."""

    def __init__(self, registry: CollectorRegistry, replicas: Sequence[str]) -> None:
        """``replicas``: their labels."""
        self._replicas = replicas
        self._instrument: Instrument | None = None
        self._first = self._acked = 0  # numbers of the first write, and of the newest acknowledged one
        self._ends: dict[int, list[float | None]] = {}  # of the writes that another replica still lacks
        self.failing: dict[tuple[str, str], str] = {}  # the last error, by operation and replica
        self._writes, self._write_seconds = WRITES.on(registry), WRITE.on(registry)
        self._windows, self._errors = WINDOW.on(registry), _ERRORS.on(registry)
        self._delays, self._brackets = DELAY.on(registry), _BRACKET.on(registry)
        self._start_at_0()
        registry.register(self)

    def _start_at_0(self) -> None:
        """Export every series from the start: a later one would hide its first increase."""
        for result in ("acknowledged", "unknown"):
            self._writes.labels(result)
        for outcome in ("converged", "timeout"):
            self._windows.labels(outcome)
        self._errors.labels("write", "")
        for replica in self._replicas:
            self._errors.labels("read", replica)
            self._delays.labels(replica)
            self._brackets.labels(replica)

    @override
    def started(self, instrument: Instrument) -> None:
        self._first = instrument.shared.next_number
        self._instrument = instrument

    @override
    def wrote(self, write: Write) -> None:
        if write.acked is None:
            self._writes.labels("unknown").inc()
        else:
            self._writes.labels("acknowledged").inc()
            self._write_seconds.observe(write.acked - write.sent)
            self._acked = write.number

    @override
    def found(self, replica: int, bracket: Bracket) -> None:
        if bracket.high is not None:
            self._delays.labels(self._replicas[replica]).observe(max(0.0, bracket.high - bracket.acked))
            self._brackets.labels(self._replicas[replica]).observe(bracket.high - bracket.low)
        ends = self._ends.setdefault(bracket.number, [])
        ends.append(bracket.high)
        if len(ends) == len(self._replicas):
            self._observe_window(bracket.acked, self._ends.pop(bracket.number))

    def _observe_window(self, acked: float, ends: Sequence[float | None]) -> None:
        seen = [end for end in ends if end is not None]
        if len(seen) == len(ends):
            self._windows.labels("converged").observe(max(0.0, max(seen) - acked))
        elif self._instrument is not None:
            self._windows.labels("timeout").observe(self._instrument.now() - acked)

    @override
    def failed(self, node: Target, error: NotNow) -> None:
        operation = self._operation(node)
        self._errors.labels(*operation).inc()
        self.failing[operation] = str(error)

    @override
    def succeeded(self, node: Target) -> None:
        self.failing.pop(self._operation(node), None)

    def _operation(self, node: Target) -> tuple[str, str]:
        replicas = self._instrument.replicas if self._instrument is not None else ()
        return next(
            (("read", label) for own, label in zip(replicas, self._replicas, strict=True) if own is node), _WRITE
        )

    def collect(self) -> Iterator[Family]:
        """The gauges. What is unknown is absent, not 0."""
        if self._instrument is None:
            return
        if self._acked:
            yield VERSION.family(self._version(self._acked))
        readers = zip(self._replicas, self._instrument.readers, strict=True)
        behind = {label: found for label, reader in readers if (found := reader.behind()) is not None}
        now = self._instrument.now()
        yield by_replica(APPLIED, {label: self._version(found.newest) for label, found in behind.items()})
        yield by_replica(LAG_VERSIONS, {label: found.writes for label, found in behind.items()})
        ages = {label: 0.0 if found.since is None else max(0.0, now - found.since) for label, found in behind.items()}
        yield by_replica(LAG, ages)

    def _version(self, number: int) -> int:
        return max(0, number - self._first + 1)


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.0"  # a connection for each request, so that idle ones take no place
    timeout = _REQUEST_SECONDS

    @override
    def log(self, *_: Any) -> None:
        """Log nothing."""


class _Server(ThreadedWSGIServer):
    """Closes a connection at once while the maximum is open."""

    def __init__(self, listener: socket.socket, app: Any) -> None:
        host, port, *_ = listener.getsockname()
        super().__init__(host, port, app, _Handler, fd=listener.fileno())
        self._free = threading.Semaphore(_CONNECTIONS_MAX)

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    @override
    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


@contextmanager
def serving(address: str, replicas: Sequence[Target]) -> Iterator[tuple[Exporter, str]]:
    """Serve the metrics of a run with these replicas, and return its observer and the URL."""
    registry = CollectorRegistry()
    exporter = Exporter(registry, labels([replica.name for replica in replicas]))
    with _listener(*parsed(address)) as listener:
        server = _Server(listener, partial(_answer, registry, exporter))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            host, port, *_ = listener.getsockname()
            yield exporter, f"http://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def parsed(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``HOST`` or ``PORT``. Raises ``LabError``."""
    host, _, port = address.rpartition(":") if ":" in address else ("", "", address)
    if not port.isdecimal() or int(port) > _PORT_MAX:
        raise LabError(f"{address[:_LABEL_MAX]!r} is not of the form HOST:PORT or PORT, such as {HOST}:{PORT}")
    return host.strip("[]") or HOST, int(port)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise LabError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from None


def _answer(registry: CollectorRegistry, exporter: Exporter, environ: Any, start_response: Any) -> Iterable[bytes]:
    return _response(registry, exporter, Request(environ))(environ, start_response)


def _response(registry: CollectorRegistry, exporter: Exporter, request: Request) -> Response | HTTPException:
    if request.path not in {"/metrics", "/health"}:
        return NotFound()
    if request.method not in {"GET", "HEAD"}:
        return MethodNotAllowed(["GET", "HEAD"])
    if request.path == "/metrics":
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)
    failing = {" ".join(filter(None, operation)): error for operation, error in exporter.failing.copy().items()}
    return Response(json.dumps({"status": "degraded" if failing else "ok", "failing": failing}), mimetype=_JSON)
