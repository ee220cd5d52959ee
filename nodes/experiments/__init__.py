"""What client and worker share about experiments: the specification and the queue."""
