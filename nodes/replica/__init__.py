"""A replica: reads the log through its own group, applies what is due to its own store, answers reads from that."""
