"""Metrics: the table of all exported metrics, and the histograms and gates shared by nodes."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Exemplar, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family

from nodes.runtime.gate import PositionGate, State

Kind = TypeVar("Kind", Counter, Gauge, Histogram)
# From 1 ms to 60 s, denser around the default delays; the objective of 5 s is a boundary.
SECONDS_BUCKETS = (
    *(0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.505, 0.55, 0.75),
    *(1.0, 1.25, 1.5, 1.505, 1.55, 1.75, 2.0, 2.5, 3.0, 3.05, 4.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0),
)
LATENESS_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0)

METRICS: dict[str, Metric[Any]] = {}


@dataclass(frozen=True)
class Metric(Generic[Kind]):
    """A metric of nodes of these ``roles``; a row of ``docs/metrics.md``. ``buckets``: upper bounds, in seconds."""

    kind: type[Kind]
    name: str
    meaning: str
    roles: tuple[str, ...]
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] = ()

    def __post_init__(self) -> None:
        METRICS[self.name] = self

    def on(self, registry: CollectorRegistry) -> Kind:
        options: Any = {"buckets": self.buckets} if self.buckets else {}
        return self.kind(self.name, self.meaning, self.labels, registry=registry, **options)

    def family(self, value: float | None = None) -> GaugeMetricFamily:
        """Return a gauge for a collector that computes its samples when it is scraped."""
        return GaugeMetricFamily(self.name, self.meaning, value, None if value is not None else self.labels)


_BOTH = ("primary", "replica")
# fmt: off
WAITING = Metric(Gauge, "ec_waiting_readers", "requests waiting for a position, or for acknowledgements", _BOTH)
WAKE = Metric(Histogram, "ec_wake_seconds", "time from a position being reached to a waiting request resuming",
              _BOTH, (), LATENESS_BUCKETS)
CHANGED = Metric(Gauge, "ec_config_change_timestamp_seconds",
                 "time of the last change to the lab, by `kind`: delay, reset, fault", _BOTH, ("replica", "kind"))
# fmt: on


def make_gate(
    state: State, max_waiters: int, registry: CollectorRegistry, waiting_elsewhere: Callable[[], int]
) -> PositionGate:
    gate = PositionGate(state, max_waiters, WAKE.on(registry).observe)
    WAITING.on(registry).set_function(lambda: gate.waiters + waiting_elsewhere())
    return gate


class Distribution:
    """A histogram in seconds that takes many observations at once, in microseconds, for speed. Thread-safe."""

    def __init__(self, metric: Metric[Histogram], *label_values: str) -> None:
        self._metric = metric
        self._label_values = label_values
        self._bounds_us = [round(bound * 1e6) for bound in metric.buckets]
        self._les = [*map(str, map(float, metric.buckets)), "+Inf"]
        self._counts = [0] * len(self._les)
        self._exemplars: list[Exemplar | None] = [None] * len(self._les)
        self._sum_us = 0
        self._lock = threading.Lock()

    def observe(self, values_us: Sequence[int], trace_ids: Iterable[str] = ()) -> None:
        """Add values and, optionally, their traces (empty for a value without one)."""
        found = [bisect_left(self._bounds_us, value_us) for value_us in values_us]
        traced = zip(found, values_us, trace_ids, strict=False)
        newest = {bucket: (value_us, trace_id) for bucket, value_us, trace_id in traced if trace_id}
        with self._lock:
            for bucket in found:
                self._counts[bucket] += 1
            self._sum_us += sum(values_us)
            for bucket, (value_us, trace_id) in newest.items():
                self._exemplars[bucket] = Exemplar({"trace_id": trace_id}, value_us / 1e6, time.time())

    def describe(self) -> list[Family]:
        return [HistogramMetricFamily(self._metric.name, self._metric.meaning)]

    def collect(self) -> Iterator[Family]:
        with self._lock:
            cells = list(zip(self._les, accumulate(self._counts), self._exemplars, strict=True))
            sum_us = self._sum_us
        buckets = [(le, up_to) if exemplar is None else (le, up_to, exemplar) for le, up_to, exemplar in cells]
        family = HistogramMetricFamily(self._metric.name, self._metric.meaning, labels=self._metric.labels)
        family.add_metric(self._label_values, buckets, sum_us / 1e6)
        yield family
