"""Real database servers for tests, with replicas whose delay is known."""
