"""The worker: runs experiments on the lab, one at a time."""
