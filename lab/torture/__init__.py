"""The chaos test: a lab under load, faults injected by a seeded schedule, and a verdict on all observations."""
