"""The feed of events: what happens in the lab, as it happens."""
