"""The clock is off."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nodes.replica.faults.fault import Fault, Parts


class Skew(Fault):
    """The replica takes it to be so much later than it is; earlier, where that is negative.

    With a clock that is ahead, entries are applied before they are due, and the replica itself does not notice.
    """

    fault: Literal["skew"]
    skew_ms: Annotated[float, Field(ge=-3_600_000, le=3_600_000)]

    def begin(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.clock.set_skew(round(self.skew_ms * 1000))
        parts.inbox.look_again()

    def end(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.clock.set_skew(0)
        parts.inbox.look_again()
