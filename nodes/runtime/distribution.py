"""Histograms that take many observations at once: the replicas' own, which are made for every entry."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import Exemplar, HistogramMetricFamily, Metric


class Distribution:
    """One series of a Prometheus histogram of seconds, observed in microseconds. Thread-safe.

    The client library's histogram takes one observation at a time, with a lock and a walk over the buckets for each.
    """

    def __init__(self, name: str, documentation: str, labels: Mapping[str, str], buckets: Sequence[float]) -> None:
        """``buckets``: upper bounds in seconds, ascending, each included; above the last it goes on to infinity."""
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._bounds_us = [round(bound * 1e6) for bound in buckets]
        self._les = [*map(str, map(float, buckets)), "+Inf"]
        self._counts = [0] * len(self._les)
        self._exemplars: list[Exemplar | None] = [None] * len(self._les)
        self._sum_us = 0
        self._lock = threading.Lock()

    def observe(self, values_us: Sequence[int], trace_ids: Iterable[str] = ()) -> None:
        """Take values, and the traces that they come from, where there are some (empty where one has none)."""
        found = [bisect_left(self._bounds_us, value_us) for value_us in values_us]
        traced = zip(found, values_us, trace_ids, strict=False)
        newest = {bucket: (value_us, trace_id) for bucket, value_us, trace_id in traced if trace_id}
        with self._lock:
            for bucket in found:
                self._counts[bucket] += 1
            self._sum_us += sum(values_us)
            for bucket, (value_us, trace_id) in newest.items():
                self._exemplars[bucket] = Exemplar({"trace_id": trace_id}, value_us / 1e6, time.time())

    def describe(self) -> list[Metric]:
        """The name, so that no other takes it."""
        return [HistogramMetricFamily(self._name, self._documentation)]

    def collect(self) -> Iterator[Metric]:
        """The series as it is now."""
        with self._lock:
            counts, exemplars, sum_us = list(self._counts), list(self._exemplars), self._sum_us
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for le, up_to, exemplar in zip(self._les, accumulate(counts), exemplars, strict=True):
            buckets.append((le, up_to) if exemplar is None else (le, up_to, exemplar))
        family = HistogramMetricFamily(self._name, self._documentation, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), buckets, sum_us / 1e6)
        yield family
