"""Grades a replica: any program that consumes the log and serves what it has applied."""
