"""Everything the log can raise, and what each means for a write.

    LogError
    ├── NotApplied          the change is certainly not in the log
    │   ├── LogUnreachable  no connection could be made, so nothing was sent
    │   ├── LogRefused      the server answered with an error
    │   │   └── LogFull     it has no memory left
    │   ├── LogMissing      the server holds no log (empty or flushed)
    │   ├── LogUnverified   the server was started again, and nobody has said yet that its log has everything
    │   └── WriteIdReused   the write id belongs to another change
    ├── OutcomeUnknown      sent, and no answer came: the change may or may not be in the log
    ├── PositionLost        the log no longer holds what a replica needs next
    ├── RecordDamaged       a record of the primary's store does not match its own digest
    ├── LogBehind           the log has lost what a replica has applied; a new epoch is to begin
    └── IdTaken             a replica of the same id is registered from another address, and alive

A caller may retry ``NotApplied`` as it likes, and ``OutcomeUnknown`` with the same write id.
"""


class LogError(Exception):
    """Root of everything the replication log raises."""


class NotApplied(LogError):
    """Raised when a change is certainly not in the log."""


class LogUnreachable(NotApplied):
    """Raised when no connection to the log server could be made, so nothing was sent."""


class LogRefused(NotApplied):
    """Raised when the log server answered with an error, for example out of memory or still loading."""


class LogFull(LogRefused):
    """Raised when the log server has no memory left for what was sent."""


class LogMissing(NotApplied):
    """Raised when the server holds no log: it was never opened, or its data was flushed."""


class LogUnverified(NotApplied):
    """Raised by an append to a server that has been started again: see ``ReplicationLog.open``."""


class WriteIdReused(NotApplied):
    """Raised when a write id comes again with another operation, key or value."""


class OutcomeUnknown(LogError):
    """Raised when a command was sent and no answer came: it may or may not have taken effect."""


class PositionLost(LogError):
    """Raised when the log no longer holds the entry that a replica needs next: only a snapshot helps."""


class RecordDamaged(LogError):
    """Raised instead of serving a record that the log server's memory or file has changed by itself."""


class LogBehind(LogError):
    """Raised when the log ends before what a replica has applied: until a new epoch begins there is nothing to read."""


class IdTaken(LogError):
    """Raised when a replica of the same id is alive elsewhere: the two would take each other's entries."""
