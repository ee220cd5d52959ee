"""The log delivers again what it has delivered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nodes.replica.faults.fault import Fault, Parts


class Duplicate(Fault):
    """Each batch of new entries is, with this probability, delivered a second time."""

    fault: Literal["duplicate"]
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0

    def begin(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.reader.read_again = lambda: parts.random.random() < self.probability

    def end(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.reader.read_again = None
