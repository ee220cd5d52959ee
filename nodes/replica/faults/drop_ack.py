"""Acknowledgements are lost on their way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nodes.replica.faults.fault import Fault, Parts


class DropAck(Fault):
    """Each acknowledgement is lost with this probability: the entry is applied, and stays pending.

    When it ends, the replica looks at what is pending, and acknowledges what it has.
    """

    fault: Literal["drop_ack"]
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0

    def begin(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.acknowledger.is_lost = lambda: parts.random.random() < self.probability

    def end(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.acknowledger.is_lost = None
        parts.reader.look_at_pending()
