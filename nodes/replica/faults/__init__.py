"""Faults that can be injected into a running replica."""

from nodes.replica.faults.faults import FAULTS, Fault, FaultBody, NothingToCorrupt

__all__ = ["FAULTS", "Fault", "FaultBody", "NothingToCorrupt"]
