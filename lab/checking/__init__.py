"""Checking the promises of consistency levels: a workload records a history, pure functions check it."""
