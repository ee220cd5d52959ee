"""Experiments: what the worker measures on the running lab, and how it is shown."""
