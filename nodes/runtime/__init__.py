"""What node processes share: configuration, serving, background threads, waiting, metrics, traces."""
