"""What the settings in force predict, as a metric beside the measured one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lab.experiments.site import Setting, Site, SiteError
from nodes.metrics import SECONDS_BUCKETS

_RATE_SECONDS = 60.0
_RATE_DIGITS = 2


class Predicted(Collector):
    """``ec_predicted_converged_ratio``: P(every replica has a write within ``le`` seconds of its commit).

    The ``le`` are the boundaries of ``ec_consistency_window_seconds``, so that one can be held against the other. In
    log order a prediction needs the rate of writes: the one of the last minute. Nothing is exported while the primary
    does not say how the replicas are set.
    """

    def __init__(self, site: Site, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._site = site
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, int, int]] = deque()
        self._known: tuple[object, list[float]] = (None, [])

    def describe(self) -> list[GaugeMetricFamily]:
        """The metric without asking anybody, which is what registering it needs."""
        return [self._family()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The curve as of now."""
        family = self._family()
        try:
            with self._lock:
                for boundary, share in zip(SECONDS_BUCKETS, self._shares(), strict=True):
                    family.add_metric([str(boundary)], share)
        except SiteError:
            return
        yield family

    def _family(self) -> GaugeMetricFamily:
        help_text = "Predicted share of writes that are on every replica within le seconds, with the settings in force"
        return GaugeMetricFamily("ec_predicted_converged_ratio", help_text, labels=["le"])

    def _shares(self) -> list[float]:
        settings = self._site.settings()
        if not settings:
            raise SiteError("no replica is registered")
        rate = round(self._rate(), _RATE_DIGITS)
        key = (rate if _matters(settings) else 0.0, {name: found.as_json() for name, found in settings.items()})
        if key != self._known[0]:
            import numpy as np  # only where somebody asks, because it is a good part of the worker's memory

            from broker.delay.curve import Replicated, predict

            replicated = [Replicated(found.model, found.order, rate) for found in settings.values()]
            curve = predict(replicated, np.array(SECONDS_BUCKETS) * 1000)
            self._known = (key, [float(share) for share in curve.converged])
        return self._known[1]

    def _rate(self) -> float:
        """Writes a second over the last minute, or since it was asked for first."""
        now, (epoch, version) = self._monotonic(), self._site.head()
        if self._seen and self._seen[-1][1] != epoch:
            self._seen.clear()
        self._seen.append((now, epoch, version))
        while now - self._seen[0][0] > _RATE_SECONDS:
            self._seen.popleft()
        then, _, before = self._seen[0]
        return (version - before) / (now - then) if now > then else 0.0


def _matters(settings: dict[str, Setting]) -> bool:
    return any(found.order == "log" and found.model.kind != "fixed" for found in settings.values())
