"""A lab on this machine: its supervisor, processes, log server and state."""
