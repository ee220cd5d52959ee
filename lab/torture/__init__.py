"""Torture: a lab under load, faults injected by a seeded schedule, and a verdict on everything observed meanwhile."""
