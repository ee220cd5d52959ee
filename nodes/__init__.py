"""The services of the lab: primary, replica, client, worker, and shared code."""
