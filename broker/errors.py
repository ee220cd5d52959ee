"""Everything the log can raise, and what each means for a write.

    LogError
    ├── NotApplied          the change is certainly not in the log
    │   ├── LogUnreachable  no connection could be made, so nothing was sent
    │   ├── LogRefused      the server answered with an error (out of memory, still loading)
    │   │   └── LogFull     it has no memory left for what was sent
    │   ├── LogMissing      the server holds no log: never opened, or flushed
    │   ├── LogUnverified   the server was restarted, and its log is not verified yet: see ``ReplicationLog.open``
    │   └── WriteIdReused   the write id belongs to another operation, key or value
    ├── OutcomeUnknown      a command was sent, and no answer came: it may or may not have taken effect
    ├── PositionLost        the log no longer holds what a replica needs next: only a snapshot helps
    ├── RecordDamaged       a record of the primary's store does not match its own digest, so it is not served
    ├── LogBehind           the log ends before what a replica has applied; it waits for a new epoch
    └── IdTaken             a replica of the same id is alive elsewhere: the two would take each other's entries

A caller may retry ``NotApplied`` as it likes, and ``OutcomeUnknown`` with the same write id.
"""


class LogError(Exception): ...


class NotApplied(LogError): ...


class LogUnreachable(NotApplied): ...


class LogRefused(NotApplied): ...


class LogFull(LogRefused): ...


class LogMissing(NotApplied): ...


class LogUnverified(NotApplied): ...


class WriteIdReused(NotApplied): ...


class OutcomeUnknown(LogError): ...


class PositionLost(LogError): ...


class RecordDamaged(LogError): ...


class LogBehind(LogError): ...


class IdTaken(LogError): ...
