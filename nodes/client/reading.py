"""Reading at a level: choose a node that can serve it, fail over to another, and report the staleness."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NotRequired

from typing_extensions import TypedDict

from broker.position import START, Position
from nodes.client.directory import PATIENCE_SECONDS
from nodes.client.errors import LevelNotReached, ReadRefused
from nodes.client.levels import BY_NAME, LevelQuery, Nodes, Read, Served
from nodes.client.metrics import ClientMetrics
from nodes.client.session import Session
from nodes.http.level import Level
from nodes.http.peers import Ask, PeerError, PeerRefused, Reply
from nodes.http.times import ms


class Asked(TypedDict):
    """One replica's answer to a quorum read; ``read_at``: after its ``read_delay_ms``, by the log's clock."""

    version: int
    position: str
    read_at: str | None
    read_delay_ms: float | None


class ReadAnswer(TypedDict):
    """The value read, its source, its level, and its staleness.

    ``level_had``: the strongest level that this response satisfied. ``waited_ms``: how long the reader waited in all.
    ``stale``: whether a write committed before the read started was missing; then ``behind_versions`` counts the
    missing versions, and ``stale_ms`` is the age of the oldest. All three are ``null`` if the primary did not respond
    in time. ``token``: for a later read of the same session. ``r`` and ``asked``: only at level ``quorum``, the number
    of replicas asked, and the answer of each.
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
    r: NotRequired[int]
    asked: NotRequired[dict[str, Asked]]


@dataclass(frozen=True)
class Reader:
    nodes: Nodes
    metrics: ClientMetrics
    on_read: Callable[[ReadAnswer, float], None] = lambda _, __: None  # with the time at which the answer arrived

    def read(self, key: str, query: LevelQuery, session: Session) -> ReadAnswer:
        """A missing key has version 0. Raises ``ReadRefused``, ``PeerRefused`` or ``PeerError``."""
        try:
            answer, received_at = self._read(Read(key, query, session, self.nodes.monotonic()))
        except (ReadRefused, PeerRefused) as refused:
            late = isinstance(refused, LevelNotReached) or getattr(refused, "status", None) == 504
            self.metrics.level_read(query.level, "timeout" if late else "refused")
            raise
        except PeerError as error:
            self.metrics.level_read(query.level, "error")
            error.role, error.extra = "node", {"level": query.level}
            raise
        outcome = {None: "unknown", True: "stale", False: "fresh"}[answer["stale"]]
        self.metrics.level_read(query.level, outcome, answer["waited_ms"])
        position = Position.parse(answer["position"])
        self.metrics.shown(went_back=position < session.read, lost_own_write=position < session.written)
        self.on_read(answer, received_at)
        return answer

    def _read(self, read: Read) -> tuple[ReadAnswer, float]:
        level = BY_NAME[read.query.level]
        served, head = level.serve(self.nodes, self.nodes.urls(read.query, level), read)
        versions, age_ms = self._missing(served, head, read.started)
        answer: ReadAnswer = {
            "key": read.key,
            "value": served.body.get("value"),
            "version": served.version,
            "position": str(served.position),
            "source": served.source,
            "level": read.query.level,
            "level_had": "strong" if versions == 0 else level.promise or _had(read, served),
            "waited_ms": ms((self.nodes.monotonic() - read.started) * 1e6),
            "stale": None if versions is None else versions > 0,
            "behind_versions": versions,
            "stale_ms": age_ms,
            "token": read.session.after_read(shown(served.position, served.version)).token,
        }
        if served.asked:
            answer |= {"r": len(served.asked), "asked": {one.source: _asked(one) for one in served.asked}}
        return answer, served.received_at

    def _missing(self, served: Served, head: Position | None, started: float) -> tuple[int | None, float | None]:
        """The number of versions missing up to the head, and the age in milliseconds of the oldest one."""
        if head is None:
            return None, None
        if served.position >= head:
            return 0, 0.0
        if served.position.epoch < head.epoch:
            return max(1, head.version), None
        versions = head.version - served.position.version
        first = Position(head.epoch, served.position.version + 1)
        ask = Ask(f"{self.nodes.primary_url}/version", fields={"min_position": str(first), "timeout_ms": "0"})
        found = next((reply for _, reply in self.nodes.peers.ask_each({"primary": ask}, PATIENCE_SECONDS)), None)
        if not isinstance(found, Reply) or found.status != 200 or not found.body.get("applied_at"):
            return versions, None
        newest, oldest = (datetime.fromisoformat(found.body[name]) for name in ("write_timestamp", "applied_at"))
        age_ms = (newest - oldest) / timedelta(milliseconds=1) + found.body["data_age_ms"]
        age_ms -= (found.received_at - served.received_at) * 1000
        if age_ms < (served.received_at - started) * 1000:
            return 0, 0.0  # the head is read in parallel: all of these were written during the read
        return versions, ms(max(0.0, age_ms * 1000))


def _asked(served: Served) -> Asked:
    body = served.body
    return {
        "version": served.version,
        "position": str(served.position),
        "read_at": body.get("read_at"),
        "read_delay_ms": body.get("read_delay_ms"),
    }


def _had(read: Read, served: Served) -> Level:
    if read.session.position != START and served.position >= read.session.position:
        return "session"
    return "prefix" if served.is_prefix else "eventual"


def shown(position: Position, version: int) -> Position:
    """The newest position that a read showed: in order of arrival a record can be newer than its store's position."""
    return max(position, Position(position.epoch, version))
