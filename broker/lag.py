"""The lag of each replica as seen from the log, including replicas that do not respond."""

from typing import NamedTuple

from broker.history import GroupState
from broker.log import ReplicationLog
from broker.position import START, Position
from broker.primary_store import Head
from broker.registry import Member


class Lag(NamedTuple):
    """A replica's unapplied writes. ``seconds``: age of the oldest one, 0 if there is none; ``ack_seconds``: the same
    of its unacknowledged writes. ``applied`` and ``acknowledged``: the last such version in the log's epoch, or 0.
    """

    versions: int
    seconds: float
    applied: int
    acknowledged: int
    ack_seconds: float
    pending: int
    undelivered: int


def observe(log: ReplicationLog, members: list[Member]) -> dict[str, Lag]:
    """Return each member's lag. Raises ``broker.errors.LogError`` if the lag is unknown, which is not 0."""
    groups = {group.replica: group for group in log.history.groups()}
    head = log.head()
    return {member.replica: _lag(log, head, member, groups.get(member.replica)) for member in members}


def _lag(log: ReplicationLog, head: Head, member: Member, group: GroupState | None) -> Lag:
    acknowledged = _acknowledged(group) if group else START
    applied = max(member.position, acknowledged)
    seconds, versions = _age_us(log, head, applied) / 1e6, _versions(applied, head.position)
    return Lag(
        versions=versions,
        seconds=seconds,
        applied=head.position.version - versions,
        acknowledged=head.position.version - _versions(acknowledged, head.position),
        ack_seconds=seconds if acknowledged == applied else _age_us(log, head, acknowledged) / 1e6,
        pending=group.pending if group else 0,
        undelivered=_versions(group.last_delivered if group else START, head.position),
    )


def _acknowledged(group: GroupState) -> Position:
    """Return the last position acknowledged without a gap. A heartbeat's can be newer, or up to a second older."""
    oldest = group.oldest_pending
    if oldest is None:
        return group.last_delivered
    return Position(oldest.epoch, oldest.version - 1) if oldest.version else START


def _age_us(log: ReplicationLog, head: Head, applied: Position) -> int:
    """Return the age of the oldest write after a position, 0 if there is none; if trimmed, of the oldest one kept."""
    if applied >= head.position:
        return 0
    oldest = next(iter(log.history.after(applied, 1)), head)
    return max(0, log.history.now_us() - oldest.at_us)


def _versions(behind: Position, head: Position) -> int:
    if behind.epoch == head.epoch:
        return max(0, head.version - behind.version)
    return head.version if behind < head else 0
