"""Histograms that take many observations at once, compared with the client library's histograms."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest

from nodes.runtime.metrics import LATENESS_BUCKETS, METRICS, Distribution, Metric

LATE = Metric(Histogram, "late_seconds", "Late", ("replica",), ("replica",), LATENESS_BUCKETS)
del METRICS[LATE.name]  # which are the lab's
Observed = list[tuple[int, str]]
_BOUNDS_US = [round(bound * 1e6) for bound in LATENESS_BUCKETS]
_VALUES_US = st.one_of(st.sampled_from(_BOUNDS_US), st.integers(-1000, 10**8))
_BATCHES = st.lists(st.lists(st.tuples(_VALUES_US, st.sampled_from(["", "a" * 32, "b" * 32]))))


def by_the_library(batches: list[Observed]) -> CollectorRegistry:
    registry = CollectorRegistry()
    histogram = Histogram("late_seconds", "Late", ["replica"], buckets=LATENESS_BUCKETS, registry=registry)
    series = histogram.labels("r1")
    for batch in batches:
        for value_us, trace_id in batch:
            series.observe(value_us / 1e6, {"trace_id": trace_id} if trace_id else None)
    return registry


def by_the_lab(batches: list[Observed]) -> CollectorRegistry:
    registry = CollectorRegistry()
    found = Distribution(LATE, "r1")
    registry.register(found)
    for batch in batches:
        found.observe([value_us for value_us, _ in batch], [trace_id for _, trace_id in batch])
    return registry


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], tuple[float, object]]:
    """The values and exemplars, by name and bucket."""
    return {
        (sample.name, sample.labels.get("le", "")): (
            round(sample.value, 6),
            sample.exemplar and (sample.exemplar.labels, sample.exemplar.value),
        )
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


@given(_BATCHES)
def test_the_series_equals_the_librarys_for_the_same_observations(batches: list[Observed]) -> None:
    assert samples(by_the_lab(batches)) == samples(by_the_library(batches))


def test_both_have_the_same_exposition() -> None:
    batches = [[(100, "a" * 32), (101, ""), (70_000_000, "b" * 32)]]
    ours, theirs = (
        [
            line.partition("# {")[0] if line.startswith("late") else line
            for line in generate_latest(registry).decode().splitlines()
            if "_created" not in line
        ]
        for registry in (by_the_lab(batches), by_the_library(batches))
    )
    assert sorted(ours) == sorted(theirs)


def test_without_traces_there_are_no_exemplars() -> None:
    found = Distribution(LATE, "r1")
    found.observe([1, 2, 3])
    (metric,) = found.collect()
    assert not any(sample.exemplar for sample in metric.samples)
