"""The services of the lab: primary, replica, client, and what they share."""
