"""Minimal programs that serve as baselines."""
