"""A replica: reads the log through its own group, applies due entries to its own store, and serves reads from it."""
