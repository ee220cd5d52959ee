"""Schemathesis over a node: its configuration and hooks."""
