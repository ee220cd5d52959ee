"""Faults that can be injected into a running replica."""

from nodes.replica.faults.faults import FAULTS, SKEW_DRAWN_MS_MAX, Fault, FaultBody, NothingToCorrupt

__all__ = ["FAULTS", "SKEW_DRAWN_MS_MAX", "Fault", "FaultBody", "NothingToCorrupt"]
