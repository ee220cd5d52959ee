"""Minimal programs, against which the lab is measured."""
