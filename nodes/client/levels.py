"""The consistency levels, one class each: which nodes can serve a level, and its requirements for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from pydantic import Field, model_validator

from broker.position import START, Position
from nodes.client.directory import Directory, LogHead
from nodes.client.errors import EarlierEpoch, LevelNotAvailable, LevelNotReached, NoReplicaToRead, PositionNotIssued
from nodes.client.session import Session, end
from nodes.http.api import Query, TimeoutMs
from nodes.http.level import QUORUM_MAX, Level
from nodes.http.peers import Ask, PeerError, PeerRefused, Peers

_RESETS_MAX = 3  # during one bounded read, until it is given up


class LevelQuery(Query):
    level: Level = "eventual"
    max_lag_ms: Annotated[float, Field(ge=0, le=86_400_000)] | None = None
    max_lag_versions: Annotated[int, Field(ge=0, lt=10**15)] | None = None
    r: Annotated[int, Field(ge=1, le=QUORUM_MAX)] | None = None
    replica: str | None = None
    timeout_ms: TimeoutMs = 5000

    @model_validator(mode="after")
    def _makes_sense(self) -> LevelQuery:
        bounds = self.max_lag_ms is not None or self.max_lag_versions is not None
        if bounds != (self.level == "bounded"):
            raise ValueError("level=bounded requires max_lag_ms or max_lag_versions; other levels accept neither")
        if (self.r is not None) != (self.level == "quorum"):
            raise ValueError("level=quorum requires r, the number of replicas to ask; other levels do not accept it")
        if self.replica is not None and self.level in {"strong", "quorum"}:
            instead = "the primary" if self.level == "strong" else "r random replicas"
            raise ValueError(f"level={self.level} reads from {instead}, not from one replica")
        return self


class Served(NamedTuple):
    """A node's response; ``asked``: of a quorum, all responses of which this is the newest."""

    body: dict[str, Any]
    position: Position
    received_at: float
    asked: tuple[Served, ...] = ()

    @property
    def source(self) -> str:
        return str(self.body["source"])

    @property
    def version(self) -> int:
        return int(self.body.get("version", 0))

    @property
    def is_prefix(self) -> bool:
        """Whether the store was a prefix of the history: nothing was applied beyond its position."""
        return bool(self.body.get("newest_applied") == self.body["position"])


class Read(NamedTuple):
    key: str
    query: LevelQuery
    session: Session
    started: float


@dataclass(frozen=True)
class Nodes:
    primary_url: str
    peers: Peers
    directory: Directory
    head: LogHead
    random: Random
    monotonic: Callable[[], float]

    def urls(self, query: LevelQuery, level: Eventual) -> list[str]:
        """The nodes that can serve a level, in random order. Raises ``NoReplicaToRead`` or ``LevelNotAvailable``."""
        if level.from_primary:
            return [self.primary_url]
        known = self.directory.replicas()
        if not known or (query.replica is not None and query.replica not in known):
            raise NoReplicaToRead(query.replica or "", known)
        usable = [
            found.url
            for name, found in sorted(known.items())
            if query.replica in {None, name} and (found.order == "log" or not level.in_log_order)
        ]
        if not usable:
            detail = (
                f"Level {query.level} needs a replica in log order; every replica to read applies in order of arrival"
            )
            raise LevelNotAvailable(detail, level=query.level)
        self.random.shuffle(usable)
        return usable

    def ask(self, url: str, read: Read, target: Position | None = None, *, wait: bool = False) -> Served:
        """Read the key from a node, once it reaches ``target`` or, without ``wait``, if it already has.

        With ``wait`` and without ``target``, the node may hold the read back until the time is up.

        Raises ``PeerRefused``, with 504 if it has not and 412 if it is in a later epoch, or ``PeerError``.
        """
        left_seconds = read.started + read.query.timeout_ms / 1000 - self.monotonic()
        wait_ms = max(0, round(left_seconds * 1000)) if wait else 0
        fields = None if target is None else {"min_position": str(target), "timeout_ms": str(wait_ms)}
        reply = self.peers.ask(Ask(f"{url}/data/{quote(read.key, safe='')}", fields=fields, wait_ms=wait_ms))
        if reply.status in {200, 404} and "source" in reply.body:
            return Served(reply.body, Position.parse(reply.body["position"]), reply.received_at)
        if reply.status in {200, 404}:  # it ignores the position: docs/bring-your-own.md
            raise PeerError(f"{url} does not read at consistency levels", sent=True)
        raise PeerRefused(reply.status, reply.body)


class Eventual:
    """Read any replica in its current state."""

    from_primary = False
    in_log_order = False  # whether only replicas that apply in log order can serve it
    promise: Level | None = None  # what every answer is good for, if that does not depend on the node's position

    def serve(self, nodes: Nodes, urls: list[str], read: Read) -> tuple[Served, Position | None]:
        """A response, and the head of the log to compare it with, if the primary responds in time.

        A node that does not respond or is not usable is replaced by another. Raises ``PeerError`` or
        ``LevelNotAvailable`` when none is left.
        """
        while True:
            try:
                return self._serve(nodes, urls.pop(), read)
            except (PeerError, LevelNotAvailable):
                if not urls:
                    raise

    def _serve(self, nodes: Nodes, url: str, read: Read) -> tuple[Served, Position | None]:
        asked = nodes.head.ask()
        return self._ask(nodes, url, read, asked), nodes.head.answer(asked)

    def _ask(self, nodes: Nodes, url: str, read: Read, _asked: Future[Position | None]) -> Served:
        return nodes.ask(url, read)


class Prefix(Eventual):
    """Read a replica in log order in its current state: some prefix of the history.

    Its order can have changed a moment ago, and what it applied out of order is still in its store.
    """

    in_log_order = True

    def _ask(self, nodes: Nodes, url: str, read: Read, _asked: Future[Position | None]) -> Served:
        served = nodes.ask(url, read)
        if not served.is_prefix:
            newest, position = served.body.get("newest_applied"), served.position
            detail = f"{served.source} is at {position}, and has applied entries beyond it, up to {newest}"
            raise LevelNotAvailable(f"Level prefix needs a replica in log order; {detail}", level="prefix")
        return served


class OfSession(Eventual):
    """Read a replica once it has everything the session wrote and was shown."""

    def _ask(self, nodes: Nodes, url: str, read: Read, asked: Future[Position | None]) -> Served:
        """Wait for the replica, unless the primary reports that the session's position is invalid."""
        session, target = read.session, read.session.position
        if target == START:
            return nodes.ask(url, read)
        try:
            return nodes.ask(url, read, target)
        except PeerRefused as refused:
            if refused.status != 504:
                raise _reason(read, target, refused) from None
        head = nodes.head.answer(asked)
        if head is not None and target > head:
            detail = f"The lab never issued {target}; its newest position is {head}"
            raise PositionNotIssued(detail, end(session.lab), position=str(head))
        if head is not None and target.epoch < head.epoch:
            raise _earlier_epoch(session, str(head))
        try:
            return nodes.ask(url, read, target, wait=True)
        except PeerRefused as refused:
            raise _reason(read, target, refused) from None


class Bounded(Eventual):
    """Read a replica once it is within the bound in versions or milliseconds."""

    promise: Level | None = "bounded"

    def _serve(self, nodes: Nodes, url: str, read: Read) -> tuple[Served, Position | None]:
        for _ in range(_RESETS_MAX):
            target, head = self._bound(nodes, read.query)
            try:
                return nodes.ask(url, read, target, wait=True), head
            except PeerRefused as refused:
                if refused.status != 412:
                    raise _reason(read, target, refused) from None
        raise PeerError("The lab was reset repeatedly during the read", sent=False)

    def _bound(self, nodes: Nodes, query: LevelQuery) -> tuple[Position, Position]:
        """The position that the bound requires, and the head of the log that it was derived from."""
        if query.max_lag_ms is not None:
            ask = Ask(f"{nodes.primary_url}/position", fields={"age_ms": str(query.max_lag_ms)})
            found = nodes.peers.require(ask).body
            target, head = Position.parse(found["position"]), Position.parse(found["head"])
        elif newest := nodes.head.now():
            target, head = START, newest
        else:
            raise PeerError("The primary does not report the head of the log", sent=False)
        if query.max_lag_versions is not None:
            target = max(target, Position(head.epoch, max(0, head.version - query.max_lag_versions)))
        return target, head


class Strong(Eventual):
    """Read the primary, which has every acknowledged write."""

    from_primary = True

    def _serve(self, nodes: Nodes, url: str, read: Read) -> tuple[Served, Position | None]:
        served = nodes.ask(url, read)
        return served, served.position


class Quorum(Eventual):
    """Read r random replicas at once, and return the newest answer; one that does not respond is replaced."""

    def serve(self, nodes: Nodes, urls: list[str], read: Read) -> tuple[Served, Position | None]:
        r, asked = read.query.r or 1, nodes.head.ask()
        if r > len(urls):
            raise LevelNotAvailable(f"r={r} replicas cannot be asked: {len(urls)} are registered", level="quorum")
        found: list[Served] = []
        while len(found) < r:
            calls = {url: partial(_attempt, nodes, url, read) for url in urls[len(found) - r :]}
            del urls[len(found) - r :]
            answers = nodes.peers.run_all(calls).values()
            found += [answer for answer in answers if isinstance(answer, Served)]
            failed = [answer for answer in answers if isinstance(answer, PeerError)]
            if len(failed) > len(urls):
                raise failed[0]
        return newest(found)._replace(asked=tuple(found)), nodes.head.answer(asked)


def _attempt(nodes: Nodes, url: str, read: Read) -> Served | PeerError:
    try:
        return nodes.ask(url, read, wait=True)
    except PeerError as error:
        return error


def newest(found: list[Served]) -> Served:
    """The response with the newest version of the key, or one that shows that this version was deleted.

    A replica that lacks the key deleted a version that its position covers. In order of arrival, it can also have
    deleted versions beyond its position, which its response does not show.
    """
    best = max(found, key=lambda served: (served.position.epoch, served.version, served.position))
    covered = Position(best.position.epoch, best.version)
    deleted = [served for served in found if not served.version and served.position >= covered]
    return max(deleted or [best], key=lambda served: served.position)


BY_NAME: dict[Level, Eventual] = {
    "strong": Strong(),
    "bounded": Bounded(),
    "session": OfSession(),
    "prefix": Prefix(),
    "quorum": Quorum(),
    "eventual": Eventual(),
}


def _earlier_epoch(session: Session, position: str) -> EarlierEpoch:
    detail = f"{session.position} is of an earlier epoch: the lab was reset, now at {position}. Start a new session"
    return EarlierEpoch(detail, end(session.lab), position=position)


def _reason(read: Read, target: Position, refused: PeerRefused) -> Exception:
    position = str(refused.body.get("position"))
    if refused.status == 412:
        return _earlier_epoch(read.session, position)
    if refused.status != 504:
        return refused
    level, timeout_ms = read.query.level, read.query.timeout_ms
    detail = f"Level {level} needs {target}; the node was at {position} after {timeout_ms} ms"
    return LevelNotReached(detail, level=level, min_position=str(target), position=position)
