"""Cut off from the log, and still answering reads."""

from __future__ import annotations

from typing import Literal

from nodes.replica.faults.fault import Fault, Parts


class Partition(Fault):
    """No connection to the log server is possible, and those that there are break."""

    fault: Literal["partition"]

    def begin(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.link.cut()

    def end(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.link.mend()
