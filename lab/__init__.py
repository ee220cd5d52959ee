"""The tools around the nodes: command line, local runner, checks, chaos test, benchmark and reports."""

__version__ = "0.1.0"
