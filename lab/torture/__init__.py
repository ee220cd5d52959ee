"""Torture: a lab under load, broken again and again by a seeded schedule, and a verdict on what it did meanwhile."""
