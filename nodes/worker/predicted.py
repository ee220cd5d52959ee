"""The prediction from the current settings, as a metric to compare with the measured one."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from prometheus_client import Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from broker.delay.prediction import predict
from nodes.runtime.metrics import SECONDS_BUCKETS, Metric
from nodes.worker.run import Target, TargetError

_CONVERGED = Metric(
    Gauge,
    "ec_predicted_converged_ratio",
    "predicted share of writes that are on every replica within `le` seconds, with the current settings",
    ("worker",),
    ("le",),
)
_RATE_SECONDS = 60.0
_WAIT_SECONDS = 0.05


class Predicted(Collector):
    """The ``le`` are the boundaries of ``ec_consistency_window_seconds``, for comparison.

    In log order a prediction needs the rate of writes, that of the last minute. The worker asks the primary in the
    background and a scrape waits only briefly; until the primary responds or fails, its previous response counts.
    """

    def __init__(self, target: Target, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, int, int]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predicted")
        self._answered: Future[list[float]] | None = None
        self._asked: Future[list[float]] | None = None

    def describe(self) -> list[GaugeMetricFamily]:
        return [_CONVERGED.family()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._lock:
            if self._asked is None or self._asked.done():
                self._answered, self._asked = self._asked, self._thread.submit(self._shares)
            asked, answered = self._asked, self._answered
        wait([asked], _WAIT_SECONDS)
        newest = asked if asked.done() else answered
        if newest is None:
            return
        try:
            shares = newest.result()
        except TargetError:
            return
        family = _CONVERGED.family()
        for boundary, share in zip(SECONDS_BUCKETS, shares, strict=True):
            family.add_metric([str(boundary)], share)
        yield family

    def _shares(self) -> list[float]:
        if replicated := self._target.replicated(self._rate()):
            return predict(list(replicated.values()), [boundary * 1000 for boundary in SECONDS_BUCKETS]).converged
        raise TargetError("no replica is registered")

    def _rate(self) -> float:
        """Writes per second over the last minute, or since the first scrape."""
        now, (epoch, version) = self._monotonic(), self._target.head()
        if self._seen and self._seen[-1][1] != epoch:
            self._seen.clear()
        self._seen.append((now, epoch, version))
        while now - self._seen[0][0] > _RATE_SECONDS:
            self._seen.popleft()
        then, _, before = self._seen[0]
        return (version - before) / (now - then) if now > then else 0.0
