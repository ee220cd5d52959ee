"""Everything the log can raise, and what each means for a write.

    LogError
    ├── NotApplied          the change is certainly not in the log
    │   ├── LogUnreachable  no connection could be made, so nothing was sent
    │   ├── LogMoved        the server does not take writes any more, another one does; the next command asks which
    │   ├── LogRefused      the server answered with an error (out of memory, too few replicas of its own)
    │   │   └── LogFull     it has no memory left for the request
    │   ├── LogMissing      the server holds no log: never opened, or flushed
    │   ├── LogUnverified   the server was restarted or took over, and its log is not verified yet: see
    │   │                   ``ReplicationLog.open``
    │   └── WriteIdReused   the write id belongs to another operation, key or value
    ├── OutcomeUnknown      a command was sent without a reply: it may or may not have taken effect
    │   └── TooFewCopies    the log server has the change, but too few of its replicas confirmed it
    ├── PositionLost        the log no longer has the entry that a replica needs next: only a snapshot helps
    ├── RecordDamaged       a record of the primary's store does not match the record's digest and is not served
    ├── LogBehind           the log ends before what this node has seen; it waits for a new epoch
    └── IdTaken             a replica with the same id is alive elsewhere: the two would take each other's entries

Callers can retry ``NotApplied`` freely, and ``OutcomeUnknown`` with the same write id.
"""

from broker.position import Position


class LogError(Exception): ...


class NotApplied(LogError): ...


class LogUnreachable(NotApplied): ...


class LogMoved(NotApplied): ...


class LogRefused(NotApplied): ...


class LogFull(LogRefused): ...


class LogMissing(NotApplied): ...


class LogUnverified(NotApplied): ...


class WriteIdReused(NotApplied): ...


class OutcomeUnknown(LogError): ...


class TooFewCopies(OutcomeUnknown):
    def __init__(self, message: str, position: Position) -> None:
        super().__init__(message)
        self.position = position


class PositionLost(LogError): ...


class RecordDamaged(LogError): ...


class LogBehind(LogError): ...


class IdTaken(LogError): ...
