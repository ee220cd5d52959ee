"""Which traces are recorded."""

from __future__ import annotations

from opentelemetry.sdk.trace.sampling import Decision

from nodes.runtime.sampler import AtMostPerSecond


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def recorded(sampler: AtMostPerSecond, asked: int) -> int:
    return sum(
        sampler.should_sample(None, number, "write").decision is Decision.RECORD_AND_SAMPLE for number in range(asked)
    )


def test_every_trace_is_recorded_up_to_the_bound() -> None:
    clock = Clock()
    sampler = AtMostPerSecond(10, clock)
    assert recorded(sampler, 8) == 8
    assert recorded(sampler, 8) == 2
    clock.now += 0.35
    assert recorded(sampler, 8) == 3
    clock.now += 100
    assert recorded(sampler, 100) == 10  # what was not used is not saved up for longer than a second
    assert sampler.get_description() == "at most 10 a second"


def test_a_recorded_trace_keeps_its_initial_attributes() -> None:
    found = AtMostPerSecond(1, Clock()).should_sample(None, 1, "write", attributes={"a": "b"})
    assert dict(found.attributes or {}) == {"a": "b"}
