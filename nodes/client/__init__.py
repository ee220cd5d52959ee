"""The client: writes, reads, compares versions, and measures how long convergence takes."""
