"""What a person starts: the command line, the local runner, the demo."""

__version__ = "0.1.0"
