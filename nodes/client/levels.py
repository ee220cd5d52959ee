"""Reading at a consistency level: what each level asks of a node, and what the reader then had.

=========  ==========================================================================================
strong     the primary, which has every acknowledged write
bounded    a replica, once it is at most so many versions or milliseconds behind
session    a replica, once it has what the session wrote and was shown
prefix     a replica as it is: some prefix of the history
eventual   a replica as it is
=========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from random import Random
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from pydantic import Field, model_validator
from typing_extensions import TypedDict

from broker.position import START, Position
from nodes.client.directory import Directory
from nodes.client.head import PATIENCE_SECONDS, LogHead
from nodes.client.metrics import ClientMetrics
from nodes.client.session import Session, end
from nodes.http.api import Query, TimeoutMs
from nodes.http.level import Level
from nodes.http.peers import Ask, PeerError, PeerRefused, Peers, Reply
from nodes.http.problem import Problem
from nodes.http.times import ms

READ_TIMEOUT_MS = 5000
_RESETS_MAX = 3


class LevelQuery(Query):
    """The level, its bound, where to read, and how long to wait for it."""

    level: Level = "eventual"
    max_lag_ms: Annotated[float, Field(ge=0, le=86_400_000)] | None = None
    max_lag_versions: Annotated[int, Field(ge=0, lt=10**15)] | None = None
    replica: str | None = None
    timeout_ms: TimeoutMs = READ_TIMEOUT_MS

    @model_validator(mode="after")
    def _makes_sense(self) -> LevelQuery:
        bounds = self.max_lag_ms is not None or self.max_lag_versions is not None
        if bounds != (self.level == "bounded"):
            raise ValueError("max_lag_ms or max_lag_versions goes with level=bounded, and level=bounded needs one")
        if self.level == "strong" and self.replica is not None:
            raise ValueError("level=strong reads from the primary, not from a replica")
        return self


class ReadAnswer(TypedDict):
    """What was read, from where, at which level, and how stale that was.

    ``level_had``: the strongest level that this one answer was good for. ``waited_ms``: how long the reader waited for
    all of this. ``stale``: whether a write was missing that had been committed before the read began, in which case
    ``behind_versions`` counts what was missing and ``stale_ms`` is the age of the oldest of it. All three are ``null``
    if the primary did not answer beside the read. ``token``: for a later read of the same session.
    """

    key: str
    value: Any
    version: int
    position: str
    source: str
    level: Level
    level_had: Level
    waited_ms: float
    stale: bool | None
    behind_versions: int | None
    stale_ms: float | None
    token: str


class Served(NamedTuple):
    """A node's answer about a key, a missing one included, and when it had come, by the monotonic clock."""

    body: dict[str, Any]
    position: Position
    received_at: float


class Refused(Exception):
    """Raised when a node does not have the position that was asked for: 504 for one not reached, 412 for another epoch.

    ``position``: where the node is.
    """

    def __init__(self, status: int, position: str) -> None:
        super().__init__(position)
        self.status = status
        self.position = position


class Place(NamedTuple):
    """A node to read from, and whether it applies in log order."""

    url: str
    in_log_order: bool = True


class Levels:
    """Reads at a level."""

    def __init__(
        self,
        *,
        primary_url: str,
        peers: Peers,
        directory: Directory,
        head: LogHead,
        metrics: ClientMetrics,
        random: Random,
        monotonic: Callable[[], float],
        seen: Callable[[ReadAnswer], None] = lambda _: None,
    ) -> None:
        """``seen`` is told of every answer."""
        self._seen = seen
        self._primary_url = primary_url
        self._peers = peers
        self._directory = directory
        self._head = head
        self._metrics = metrics
        self._random = random
        self._monotonic = monotonic

    def read(self, key: str, query: LevelQuery, session: Session) -> ReadAnswer:
        """Read a key; a missing one has version 0. Raises ``Problem`` or ``PeerRefused`` if the level cannot be met."""
        try:
            answer = self._read(key, query, session)
        except (Problem, PeerRefused) as problem:
            self._metrics.read_refused(query.level, timed_out=problem.status == 504)
            raise
        except PeerError as error:
            self._metrics.read_failed(query.level)
            unavailable = Problem(503, "node-unavailable", "The node is unavailable", f"{error}.", level=query.level)
            unavailable.headers["Retry-After"] = "1"
            raise unavailable from error
        self._metrics.read_at_level(query.level, stale=answer["stale"], waited_ms=answer["waited_ms"])
        position = Position.parse(answer["position"])
        self._metrics.shown(went_back=position < session.read, lost_own_write=position < session.written)
        self._seen(answer)
        return answer

    def _read(self, key: str, query: LevelQuery, session: Session) -> ReadAnswer:
        began = self._monotonic()
        deadline = began + query.timeout_ms / 1000
        places = [Place(self._primary_url)] if query.level == "strong" else self._places(query)
        while True:
            place = places.pop()
            try:
                served, head = self._serve(place.url, key, query, session=session, deadline=deadline)
                break
            except PeerError:
                if not places:
                    raise
        versions, age_ms = self._missing(served, head, began)
        had = "strong" if versions == 0 else _had(query.level, session, served, in_log_order=place.in_log_order)
        version = served.body.get("version", 0)
        return {
            "key": key,
            "value": served.body.get("value"),
            "version": version,
            "position": str(served.position),
            "source": served.body["source"],
            "level": query.level,
            "level_had": had,
            "waited_ms": ms((self._monotonic() - began) * 1e6),
            "stale": None if versions is None else versions > 0,
            "behind_versions": versions,
            "stale_ms": age_ms,
            "token": session.after_read(shown(served.position, version)).token,
        }

    def _serve(
        self, url: str, key: str, query: LevelQuery, *, session: Session, deadline: float
    ) -> tuple[Served, Position | None]:
        """Read from one node at the level; its answer, and the head of the log to hold it against.

        Raises ``Problem`` or ``PeerRefused`` if the level cannot be had, ``PeerError`` if the node does not answer.
        """
        if query.level == "strong":
            served = self._ask(url, key)
            return served, served.position  # what the primary has is all there is
        if query.level == "bounded":
            return self._serve_bounded(url, key, query, deadline)
        asked = self._head.ask()
        if query.level == "session" and session.position != START:
            served = self._serve_session(url, key, query, session=session, asked=asked, deadline=deadline)
        else:
            served = self._ask(url, key)
        return served, self._head.answer(asked)

    def _serve_bounded(self, url: str, key: str, query: LevelQuery, deadline: float) -> tuple[Served, Position]:
        """Read once the node is within the bound, again if a reset made the bound void."""
        for _ in range(_RESETS_MAX):
            target, head = self._bound(query)
            try:
                return self._ask(url, key, target, self._left_ms(deadline)), head
            except Refused as refused:
                if refused.status == 504:
                    raise _not_reached(query, target, refused.position) from None
        raise PeerError("the lab was reset again and again", sent=False)

    def _serve_session(
        self,
        url: str,
        key: str,
        query: LevelQuery,
        *,
        session: Session,
        asked: Future[Position | None],
        deadline: float,
    ) -> Served:
        """Read if the node has what the session has; otherwise wait for it, unless the primary reports it as void."""
        target = session.position
        try:
            return self._ask(url, key, target)
        except Refused as refused:
            if refused.status == 412:
                raise _earlier_epoch(session, refused.position) from None
        head = self._head.answer(asked)
        if head is not None and target > head:
            raise _not_issued(session, head)
        if head is not None and target.epoch < head.epoch:
            raise _earlier_epoch(session, str(head))
        try:
            return self._ask(url, key, target, self._left_ms(deadline))
        except Refused as refused:
            if refused.status == 412:
                raise _earlier_epoch(session, refused.position) from None
            raise _not_reached(query, target, refused.position) from None

    def _bound(self, query: LevelQuery) -> tuple[Position, Position]:
        """The position that a bound requires of a replica, and the head of the log that it was derived from."""
        if query.max_lag_ms is not None:
            found = self._peers.ask(Ask(f"{self._primary_url}/position", fields={"age_ms": str(query.max_lag_ms)}))
            if found.status != 200:
                raise PeerRefused(found.status, found.body)
            target, head = Position.parse(found.body["position"]), Position.parse(found.body["head"])
        else:
            newest = self._head.now()
            if newest is None:
                raise PeerError("the primary does not report how far the log goes", sent=False)
            target, head = START, newest
        if query.max_lag_versions is not None:
            target = max(target, Position(head.epoch, max(0, head.version - query.max_lag_versions)))
        return target, head

    def _left_ms(self, deadline: float) -> int:
        return max(0, round((deadline - self._monotonic()) * 1000))

    # -- asking -------------------------------------------------------------------------------------------------------

    def _places(self, query: LevelQuery) -> list[Place]:
        """The replicas that can serve the level, in random order: where one does not answer, another may."""
        known = {found.replica: found for found in self._directory.replicas()}
        if not known or (query.replica is not None and query.replica not in known):
            detail = f"There is no replica {(query.replica or '')[:100]!r}; there are {', '.join(known) or 'none yet'}."
            raise Problem(400, "unknown-replica", "Unknown replica", detail, known_replicas=list(known))
        usable = [
            Place(found.url, found.order == "log")
            for name, found in sorted(known.items())
            if query.replica in {None, name} and (found.order == "log" or query.level != "prefix")
        ]
        if not usable:
            detail = "A replica in order of arrival shows no prefix of the history, and no other replica is asked for."
            raise Problem(409, "level-not-available", "Level not available", detail, level=query.level)
        self._random.shuffle(usable)
        return usable

    def _ask(self, url: str, key: str, target: Position | None = None, wait_ms: int = 0) -> Served:
        """Read a key from a node; with a target, once the node has that.

        Raises ``Refused`` if it does not have the target in time, ``PeerRefused`` if it refuses for any other reason,
        ``PeerError`` if it does not answer.
        """
        fields = None if target is None else {"min_position": str(target), "timeout_ms": str(wait_ms)}
        reply = self._peers.ask(Ask(f"{url}/data/{quote(key, safe='')}", fields=fields, wait_ms=wait_ms))
        if reply.status in {200, 404} and "source" in reply.body:
            return Served(reply.body, Position.parse(reply.body["position"]), reply.received_at)
        if target is not None and reply.status in {412, 504}:
            raise Refused(reply.status, str(reply.body.get("position")))
        raise PeerRefused(reply.status, reply.body)

    def _missing(self, served: Served, head: Position | None, began: float) -> tuple[int | None, float | None]:
        """How many versions up to the head were missing, and the age in milliseconds of the oldest of them."""
        if head is None:
            return None, None
        if served.position >= head:
            return 0, 0.0
        if served.position.epoch < head.epoch:
            return max(1, head.version), None
        versions = head.version - served.position.version
        first = Position(head.epoch, served.position.version + 1)
        ask = Ask(f"{self._primary_url}/version", fields={"min_position": str(first), "timeout_ms": "0"})
        found = next((reply for _, reply in self._peers.ask_each({"primary": ask}, PATIENCE_SECONDS)), None)
        if not isinstance(found, Reply) or found.status != 200 or not found.body.get("applied_at"):
            return versions, None
        newest, oldest = (datetime.fromisoformat(found.body[name]) for name in ("write_timestamp", "applied_at"))
        age_ms = (newest - oldest) / timedelta(milliseconds=1) + found.body["data_age_ms"]
        age_ms -= (found.received_at - served.received_at) * 1000
        if age_ms < (served.received_at - began) * 1000:
            return 0, 0.0  # the head is asked for beside the read: all of this was written while the read ran
        return versions, ms(max(0.0, age_ms * 1000))


def shown(position: Position, version: int) -> Position:
    """The newest position that a read showed: in order of arrival a record may be newer than its store's position."""
    return max(position, Position(position.epoch, version))


def _had(level: Level, session: Session, served: Served, *, in_log_order: bool) -> Level:
    """The level that an answer from a replica was good for, which lacks something that others have."""
    if level == "bounded":
        return level
    if session.position != START and served.position >= session.position:
        return "session"
    return "prefix" if in_log_order else "eventual"


def _not_reached(query: LevelQuery, target: Position, position: str) -> Problem:
    detail = f"Level {query.level} needs {target}; the node was at {position} after {query.timeout_ms} ms."
    extra = {"level": query.level, "min_position": str(target), "position": position}
    return Problem(504, "level-not-reached", "Level not reached", detail, **extra)


def _not_issued(session: Session, head: Position) -> Problem:
    detail = f"The lab never issued {session.position}; its newest position is {head}."
    return end(Problem(400, "position-not-issued", "Position not issued", detail, position=str(head)), session.lab)


def _earlier_epoch(session: Session, position: str) -> Problem:
    detail = f"{session.position} is of an earlier epoch: the lab was reset, and is at {position}. Start a new session."
    return end(Problem(412, "earlier-epoch", "Position of an earlier epoch", detail, position=position), session.lab)
