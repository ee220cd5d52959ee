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

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from pydantic import Field, model_validator
from typing_extensions import TypedDict

from broker.position import START, Position
from nodes.api import Query, TimeoutMs
from nodes.client.directory import Directory
from nodes.client.metrics import ClientMetrics
from nodes.client.session import Session, end
from nodes.level import Level
from nodes.peers import Ask, PeerError, Peers
from nodes.problem import Passed, Problem
from nodes.times import ms

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
    the answer. ``stale``: whether a write was missing that had been acknowledged before the read began, in which case
    ``behind_versions`` counts what was missing and ``stale_ms`` is the age of the oldest of it. All three are ``null``
    where the primary could not be asked. ``token``: for a later read of the same session.
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
        metrics: ClientMetrics,
        random: Random,
        seen: Callable[[ReadAnswer], None] = lambda _: None,
    ) -> None:
        """``seen`` is told of every answer."""
        self._seen = seen
        self._primary_url = primary_url
        self._peers = peers
        self._directory = directory
        self._metrics = metrics
        self._random = random

    def read(self, key: str, query: LevelQuery, session: Session) -> ReadAnswer:
        """Read a key; a missing one has version 0. Raises ``Problem`` or ``Passed`` where the level cannot be had."""
        try:
            answer = self._read(key, query, session)
        except (Problem, Passed) as problem:
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
        places = [Place(self._primary_url)] if query.level == "strong" else self._places(query)
        began = time.monotonic()
        head = self._head()  # before the read, so that what it lacks was missing when the read began
        if query.level != "bounded":
            began = time.monotonic()  # only a bound needs to know the head; the others would not have asked
        deadline = began + query.timeout_ms / 1000
        while True:
            place = places.pop()
            try:
                served = self._serve(place, key, query, session=session, head=head, deadline=deadline)
                break
            except PeerError:
                if not places:
                    raise
        versions, age_ms = self._missing(served, head)
        # In order of arrival a replica may show what is beyond its position, and the session has seen it then.
        shown = max(served.position, Position(served.position.epoch, served.body.get("version", 0)))
        had = "strong" if versions == 0 else _had(query.level, session, served, in_log_order=place.in_log_order)
        return {
            "key": key,
            "value": served.body.get("value"),
            "version": served.body.get("version", 0),
            "position": str(served.position),
            "source": served.body["source"],
            "level": query.level,
            "level_had": "strong" if query.level == "strong" else had,
            "waited_ms": ms((served.received_at - began) * 1e6),
            "stale": None if versions is None else versions > 0,
            "behind_versions": versions,
            "stale_ms": age_ms,
            "token": str(max(session.token, shown)),
        }

    def _serve(
        self, place: Place, key: str, query: LevelQuery, *, session: Session, head: Position | None, deadline: float
    ) -> Served:
        """Read from one node, again where a reset made a bound void."""
        for _ in range(_RESETS_MAX):
            served = self._ask(place.url, key, self._target(query, session, head), deadline, query)
            if served is not None:
                return served
            head = self._head()
        raise PeerError("the lab was reset again and again", sent=False)

    def _target(self, query: LevelQuery, session: Session, head: Position | None) -> Position | None:
        """The position that the level wants of the node, where it wants one."""
        if query.level == "session" and session.token != START:
            if head is not None and session.token > head:
                raise _not_issued(session, head)
            if head is not None and session.token.epoch < head.epoch:
                raise _earlier_epoch(session.token, str(head))
            return session.token
        if query.level != "bounded":
            return None
        targets = []
        if query.max_lag_versions is not None:
            if head is None:
                raise PeerError("the primary does not say how far the log goes", sent=False)
            targets.append(Position(head.epoch, max(0, head.version - query.max_lag_versions)))
        if query.max_lag_ms is not None:
            targets.append(self._older_than(query.max_lag_ms))
        return max(targets)

    # -- asking -------------------------------------------------------------------------------------------------------

    def _places(self, query: LevelQuery) -> list[Place]:
        """The replicas that can serve the level, in random order: where one does not answer, another may."""
        known = {found.replica: found for found in self._directory.replicas()}
        if not known or (query.replica is not None and query.replica not in known):
            detail = f"There is no replica {(query.replica or '')[:100]!r}; there are {', '.join(known) or 'none yet'}."
            raise Problem(400, "unknown-replica", "Unknown replica", detail, known_replicas=list(known))
        usable = [
            Place(found.url, found.in_log_order)
            for name, found in sorted(known.items())
            if query.replica in {None, name} and (found.in_log_order or query.level != "prefix")
        ]
        if not usable:
            detail = "A replica in order of arrival shows no prefix of the history, and no other replica is asked for."
            raise Problem(409, "level-not-available", "Level not available", detail, level=query.level)
        self._random.shuffle(usable)
        return usable

    def _older_than(self, age_ms: float) -> Position:
        """The newest position of that age."""
        found = self._peers.ask(Ask(f"{self._primary_url}/position", fields={"age_ms": str(age_ms)}))
        if found.status != 200:
            raise Passed(found.status, found.body)
        return Position.parse(found.body["position"])

    def _ask(self, url: str, key: str, target: Position | None, deadline: float, query: LevelQuery) -> Served | None:
        """Read a key from a node that has at least the target; ``None`` where a reset made a bound's target void.

        Raises ``Problem`` or ``Passed`` where the node refuses, ``PeerError`` where it does not answer.
        """
        wait_ms = max(0, round((deadline - time.monotonic()) * 1000))
        fields = None if target is None else {"min_position": str(target), "timeout_ms": str(wait_ms)}
        reply = self._peers.ask(Ask(f"{url}/data/{quote(key, safe='')}", fields=fields, wait_ms=wait_ms))
        if reply.status in {200, 404} and "source" in reply.body:
            return Served(reply.body, Position.parse(reply.body["position"]), reply.received_at)
        position = str(reply.body.get("position"))
        if reply.status == 504 and target is not None:
            raise _not_reached(query, target, position)
        if reply.status == 412 and target is not None:
            if query.level == "bounded":
                return None
            raise _earlier_epoch(target, position)
        raise Passed(reply.status, reply.body)

    def _head(self) -> Position | None:
        """The newest position; ``None`` where the primary does not say."""
        try:
            reply = self._peers.ask(Ask(f"{self._primary_url}/version"))
        except PeerError:
            return None
        return Position.parse(reply.body["position"]) if reply.status == 200 else None

    def _missing(self, served: Served, head: Position | None) -> tuple[int | None, float | None]:
        """How many versions up to the head were missing, and the age in milliseconds of the oldest of them."""
        if head is None:
            return None, None
        if served.position >= head:
            return 0, 0.0
        if served.position.epoch < head.epoch:
            return max(1, head.version), None
        versions = head.version - served.position.version
        first = Position(head.epoch, served.position.version + 1)
        try:
            fields = {"min_position": str(first), "timeout_ms": "0"}
            found = self._peers.ask(Ask(f"{self._primary_url}/version", fields=fields))
        except PeerError:
            return versions, None
        if found.status != 200 or not found.body.get("applied_at"):
            return versions, None
        newest, oldest = (datetime.fromisoformat(found.body[name]) for name in ("write_timestamp", "applied_at"))
        age_ms = (newest - oldest) / timedelta(milliseconds=1) + found.body["data_age_ms"]
        return versions, ms(max(0.0, age_ms * 1000 - (found.received_at - served.received_at) * 1e6))


def _had(level: Level, session: Session, served: Served, *, in_log_order: bool) -> Level:
    """The level that an answer from a replica was good for, which lacks something that others have."""
    if level == "bounded":
        return level
    if session.token != START and served.position >= session.token:
        return "session"
    return "prefix" if in_log_order else "eventual"


def _not_reached(query: LevelQuery, target: Position, position: str) -> Problem:
    detail = f"Level {query.level} needs {target}; the node was at {position} after {query.timeout_ms} ms."
    extra = {"level": query.level, "min_position": str(target), "position": position}
    return Problem(504, "level-not-reached", "Level not reached", detail, **extra)


def _not_issued(session: Session, head: Position) -> Problem:
    detail = f"The lab never issued {session.token}; its newest position is {head}."
    return end(Problem(400, "position-not-issued", "Position not issued", detail, position=str(head)))


def _earlier_epoch(token: Position, position: str) -> Problem:
    detail = f"{token} is of an earlier epoch: the lab was reset, and is at {position}. Begin a new session."
    return end(Problem(412, "earlier-epoch", "Position of an earlier epoch", detail, position=position))
