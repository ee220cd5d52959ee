"""The faults of a run: what goes wrong, and what people change."""

from __future__ import annotations

from lab.report.spacetime import Event
from lab.simulation.log_faults import LogFaults
from lab.simulation.node_faults import NodeFaults
from lab.simulation.schedule import Fault


class Faults(NodeFaults, LogFaults):
    """``do`` makes a fault happen."""

    def do(self, fault: Fault) -> Event | None:
        """Return what happened, ``None`` if it could not."""
        told = getattr(self, f"_{fault.kind}")(fault)
        return None if told is None else self._world.trace.add(*told)
