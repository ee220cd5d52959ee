"""Checking what a level promises: a workload records a history, pure functions judge it."""
