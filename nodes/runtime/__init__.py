"""Code shared by node processes: configuration, serving, background threads, waiting, metrics, traces."""
