"""A class in the room: hundreds of listeners of the feed during writes, one of which never reads."""

import re
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import urllib3

from broker.position import Position
from lab import client
from lab.bench import load, setup
from lab.bench.figure import Figure, Scale, Step, Target
from lab.bench.writes import REQUESTS
from lab.errors import LabError
from lab.local.supervisor import Lab

_WRITES_PER_SECOND = 100
_DELAY_MS = 100
_SETTLE_SECONDS = 2.0  # for connections to start and to end
_LATENESS = re.compile(r'^ec_apply_lateness_seconds_bucket\{le="([^"]+)".*\} ([0-9.e+]+)$', re.MULTILINE)
# An event is a chunk of the response, so its ID is after the line that ends the chunk before and its own length.
_EVENT = re.compile(rb"\r\nid: [0-9a-f]+-([0-9]+)\n(event: missed)?")
_HEAD_BYTES = 64  # of an event, up to the type
_CHUNK = 2**18
_LISTEN = load.request("GET", "/events")


@dataclass
class Listener:
    """A listener that reads; ``unnoticed``: messages that it missed without an event that says so."""

    last: int | None = None
    messages: int = 0
    missed: int = 0
    unnoticed: int = 0
    _rest: bytes = b""

    def take(self, chunk: bytes) -> None:
        found = self._rest + chunk
        end = 0
        for event in _EVENT.finditer(found, endpos=max(0, len(found) - _HEAD_BYTES)):
            end = event.end()
            self._count(int(event[1]), missed=event[2] is not None)
        self._rest = found[max(end, len(found) - 2 * _HEAD_BYTES) :]

    def _count(self, number: int, *, missed: bool) -> None:
        self.messages += 1
        self.missed += missed
        if self.last is not None and not missed:
            self.unnoticed += number - self.last - 1
        self.last = number


@dataclass
class Audience:
    """Listeners on one thread; one more never reads, and one reads every write."""

    url: str
    count: int
    listeners: list[Listener] = field(default_factory=list)
    lost_writes: int = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        over = threading.Event()
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            for number in range(self.count - 1):
                one = stack.enter_context(load.connected(self.url))
                one.sendall(_LISTEN)
                if number:
                    self.listeners.append(Listener())
                    selector.register(one, selectors.EVENT_READ, self.listeners[-1])
            with ThreadPoolExecutor(2) as threads:
                running = [threads.submit(self._read, selector, over), threads.submit(self._follow, over)]
                try:
                    yield
                finally:
                    over.set()
            for one_thread in running:
                one_thread.result()

    def _read(self, selector: selectors.BaseSelector, over: threading.Event) -> None:
        while not over.is_set():
            for key, _ in selector.select(0.1):
                sock: socket.socket = key.fileobj  # type: ignore[assignment]
                if not (chunk := sock.recv(_CHUNK)):
                    raise LabError("the client service closed an event stream")
                key.data.take(chunk)
            over.wait(0.02)  # fewer and larger reads

    def _follow(self, over: threading.Event) -> None:
        last = None
        for message in client.messages(f"{self.url}/events"):
            for write in message.get("writes", []):
                version = Position.parse(write["position"]).version
                self.lost_writes += 0 if last is None else version - last - 1
                last = version
            if over.is_set():
                return


@dataclass
class _Round:
    lateness_ms: float
    writes_per_second: float
    memory_mb: tuple[float, float]  # after a third, and at the end
    cpu_percent: float


def measure(scale: Scale, step: Step) -> Iterator[Figure]:
    with Lab.temporary() as lab:
        setup.set_delays(lab, _DELAY_MS)
        setup.settle(lab)
        alone, listened, audiences = [], [], []
        with load.paced(lab.primary_url, REQUESTS, _WRITES_PER_SECOND):
            for _ in range(scale.rounds):
                step("no listener")
                alone.append(_round(lab, scale.seconds))
                step(f"{scale.listeners} listeners")
                audience = Audience(lab.client_url, scale.listeners)
                with audience.listening():
                    time.sleep(_SETTLE_SECONDS)
                    listened.append(_round(lab, scale.seconds))
                audiences.append(audience)
                time.sleep(_SETTLE_SECONDS)
    yield from _figures(scale.listeners, alone, listened, audiences)


def _figures(count: int, alone: list[_Round], listened: list[_Round], audiences: list[Audience]) -> Iterator[Figure]:
    lateness = [[one.lateness_ms for one in rounds] for rounds in (listened, alone)]
    name = f"lateness with {count} listeners, {_WRITES_PER_SECOND} writes/s, p99"
    # The listeners of the bench compete for the cores, too.
    yield Figure("listeners", name, "ms", lateness[0], "without", lateness[1], Target("at most", 2.5))
    unnoticed = [sum(one.unnoticed for one in audience.listeners) + audience.lost_writes for audience in audiences]
    none = Target("at most", 0)
    yield Figure("listeners", "messages that a listener missed unnoticed", "", unnoticed, target=none)
    missed = [sum(one.missed for one in audience.listeners) for audience in audiences]
    yield Figure("listeners", "reported gaps", "", missed)
    fewest = [min(one.messages for one in audience.listeners) for audience in audiences]
    yield Figure("listeners", "messages, the fewest of a listener", "", fewest)
    at_third, at_end = ([one.memory_mb[moment] for one in listened] for moment in (0, 1))
    flat = Target("at most", 1.1)
    yield Figure("listeners", "memory of the client service, at the end", "MB", at_end, "after a third", at_third, flat)
    cpu = [[one.cpu_percent for one in rounds] for rounds in (listened, alone)]
    yield Figure("listeners", "CPU of the client service", "% of a core", cpu[0], "without", cpu[1])
    rates = [[one.writes_per_second for one in rounds] for rounds in (listened, alone)]
    yield Figure("listeners", "writes", "1/s", rates[0], "without", rates[1])


def _round(lab: Lab, seconds: float) -> _Round:
    pid = lab.pids["lab14-client"]
    began, version, cpu, counts = time.monotonic(), setup.position(lab).version, setup.cpu_seconds(pid), _counts(lab)
    time.sleep(seconds / 3)
    at_third_mb = setup.memory_mb(pid)
    time.sleep(seconds * 2 / 3)
    took = time.monotonic() - began
    return _Round(
        _p99_ms(counts, _counts(lab)),
        (setup.position(lab).version - version) / took,
        (at_third_mb, setup.memory_mb(pid)),
        (setup.cpu_seconds(pid) - cpu) / took * 100,
    )


def _counts(lab: Lab) -> dict[float, float]:
    """The replicas' lateness: by upper bound in seconds, how many entries were at most as late."""
    found: dict[float, float] = {}
    for url in lab.replica_urls.values():
        text = urllib3.request("GET", f"{url}/metrics").data.decode()
        for bound, count in _LATENESS.findall(text):
            found[float(bound)] = found.get(float(bound), 0) + float(count)
    return found


def _p99_ms(before: dict[float, float], after: dict[float, float]) -> float:
    """Interpolated within its bucket, as Prometheus does."""
    counts = {bound: after[bound] - before[bound] for bound in sorted(after)}
    wanted = counts[float("inf")] * 0.99
    lower, below = 0.0, 0.0
    for bound, count in counts.items():
        if count >= wanted:
            inside = (wanted - below) / (count - below) if count > below else 0.0
            return (lower if bound == float("inf") else lower + (bound - lower) * inside) * 1000
        lower, below = bound, count
    raise LabError("the replicas have not applied anything")
