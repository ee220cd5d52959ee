"""The primary's own exceptions; ``app.py`` maps them to problems."""

from broker.errors import LogError, NotApplied, TooFewCopies


class WriteFailed(Exception):
    """Raised when the log did not accept a write; ``extra`` has ``outcome``: ``not_applied`` or ``unknown``."""

    def __init__(self, cause: LogError, **extra: str) -> None:
        super().__init__(str(cause))
        known = {"position": str(cause.position)} if isinstance(cause, TooFewCopies) else {}
        self.extra = {"outcome": outcome(cause), **known, **extra}


class NoSuchKey(Exception):
    """Raised for a delete of a missing key."""


class TooFewReplicas(Exception):
    """Raised before anything is written if more acknowledgements are required than replicas are registered."""


def outcome(error: LogError) -> str:
    return "not_applied" if isinstance(error, NotApplied) else "unknown"
