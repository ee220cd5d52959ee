"""A limit on throughput, which is not a delay: a backlog grows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nodes.replica.faults.fault import Fault, Parts


class SlowApply(Fault):
    """At most so many entries a second are applied, one at a time."""

    fault: Literal["slow_apply"]
    entries_per_second: Annotated[float, Field(ge=0.1, le=100_000)] = 10.0

    def begin(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.inbox.set_rate(self.entries_per_second)

    def end(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.inbox.set_rate(None)
