"""Connected, and applying nothing."""

from __future__ import annotations

from typing import Literal

from nodes.replica.faults.fault import Fault, Parts


class Pause(Fault):
    """Entries are delivered and wait; when it ends, everything overdue is applied at once."""

    fault: Literal["pause"]

    def begin(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.inbox.set_paused(paused=True)

    def end(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.inbox.set_paused(paused=False)
