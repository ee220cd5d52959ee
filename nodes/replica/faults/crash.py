"""The process ends at once; whoever runs it starts it again."""

from __future__ import annotations

from typing import ClassVar, Literal

from nodes.replica.faults.fault import Fault, Parts


class Crash(Fault):
    """As ``kill -9`` would."""

    momentary: ClassVar[bool] = True
    fault: Literal["crash"]

    def begin(self, parts: Parts) -> None:
        """See ``Fault``."""
        parts.end_process()
