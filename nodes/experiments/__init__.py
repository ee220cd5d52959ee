"""Experiments as client and worker know them: what may be asked for, and how it goes from one to the other."""
