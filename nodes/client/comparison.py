"""Comparisons of all nodes: versions, contents, one key, and the state of each replica."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NotRequired
from urllib.parse import quote

from pydantic import Field
from typing_extensions import TypedDict

from broker.delay.models import Order
from broker.position import Position
from nodes.client.directory import Directory, KnownReplica
from nodes.client.feed.reads import OnVersionRead, VersionRead
from nodes.http.api import Query
from nodes.http.peers import Ask, PeerError, Peers, Reply, body_or_error, failure
from nodes.http.times import wall_timestamp

_PRIMARY = "primary"
_UNKNOWN = KnownReplica("", "", lag_ms=None, order=None, diverged=False, faults=[], resyncing="", proven=False)


class CompareQuery(Query):
    digest: Annotated[bool, Field(description="compare digests as well as versions")] = False


class StaleReplica(TypedDict):
    name: str
    version: int
    behind_by: int


class Analysis(TypedDict):
    """``diverged``: equal position but a different digest, which must never happen (only with ``digest``)."""

    primary_version: int | None
    stale_replicas: list[StaleReplica]
    consistent_replicas: list[str]
    all_consistent: bool
    digests_equal: NotRequired[bool | None]
    diverged: NotRequired[list[str]]


class CompareAnswer(TypedDict):
    primary: dict[str, Any]
    replicas: dict[str, dict[str, Any]]
    analysis: Analysis


class NodeAnswer(TypedDict):
    """A node's value of a key, with version 0 if it is missing; or ``error``."""

    value: NotRequired[Any]
    version: NotRequired[int]
    position: NotRequired[str]
    error: NotRequired[str]


class EverywhereAnswer(TypedDict):
    key: str
    nodes: dict[str, NodeAnswer]


class ReplicaStatus(TypedDict):
    """``lag_ms`` and ``ack_lag_ms``: age of the oldest unapplied and of the oldest unacknowledged write. ``pending``
    entries are ``waiting`` until due, or applied and unacknowledged. What is unknown is ``null``.

    ``resyncing``: why a snapshot is replacing the content, or empty.
    """

    replica_id: str
    version: int | None
    is_consistent: bool
    version_behind: int | None
    lag_ms: float | None
    acknowledged_version: int | None
    ack_lag_ms: float | None
    pending: int | None
    waiting: int | None
    applied_unacknowledged: int | None
    data_age_ms: float | None
    diverged: bool
    faults: list[str]
    resyncing: str
    order: Order | None
    error: NotRequired[str]


class StatusAnswer(TypedDict):
    """``waiting_for_consistency``: a write-and-wait of this client is in progress."""

    primary_version: int | None
    primary_write_id: str | None
    all_consistent: bool
    waiting_for_consistency: bool
    last_poll_time: str | None
    replicas: list[ReplicaStatus]
    error: NotRequired[str]


@dataclass(frozen=True)
class Comparison:
    """Asks every node; one that does not answer is reported with ``error``."""

    peers: Peers
    directory: Directory
    primary_url: str
    waiting: Collection[str] = ()  # the ids of writes that wait for convergence
    on_read: OnVersionRead = lambda _: None

    def compare(self, query: CompareQuery) -> CompareAnswer:
        """Read from every node at once, and compare."""
        urls = self._urls()
        calls = {name: partial(self.peers.attempt, Ask(f"{url}/version")) for name, url in urls.items()}
        replies = self.peers.run_all(calls)
        answers = {name: body_or_error(reply) for name, reply in replies.items()}
        self._report(replies, answers)
        if query.digest:
            for name, found in self.peers.run_all(self._calls(urls, "/digest")).items():
                content = {"digest": found.get("digest"), "keys": found.get("keys"), "at": found.get("position")}
                answers[name]["content"] = found if "error" in found else content
        primary = answers.pop(_PRIMARY)
        analysis = _analyze(primary, answers)
        if query.digest:
            analysis |= _analyze_content(primary, answers)
        return {"primary": primary, "replicas": answers, "analysis": analysis}

    def everywhere(self, key: str) -> EverywhereAnswer:
        """The current value of a key on each node, without waiting."""
        path = f"/data/{quote(key, safe='')}"
        found = self.peers.ask_all({name: Ask(f"{url}{path}") for name, url in self._urls().items()})
        return {"key": key, "nodes": {name: _node_answer(reply) for name, reply in found.items()}}

    def status(self) -> StatusAnswer:
        """Every node's version, and each replica's lag."""
        answers = self.peers.run_all({**self._calls(self._urls(), "/version"), "known": self.directory.ask})
        known = answers.pop("known") or {}
        primary = answers.pop(_PRIMARY)
        replicas = [_status(name, answer, primary, known.get(name, _UNKNOWN)) for name, answer in answers.items()]
        found: StatusAnswer = {
            "primary_version": primary.get("version"),
            "primary_write_id": primary.get("write_id"),
            "all_consistent": "error" not in primary and all(replica["is_consistent"] for replica in replicas),
            "waiting_for_consistency": bool(self.waiting),
            "last_poll_time": wall_timestamp(),
            "replicas": replicas,
        }
        if "error" in primary:
            found["error"] = primary["error"]
        return found

    def _report(self, replies: dict[str, Reply | PeerError], answers: dict[str, dict[str, Any]]) -> None:
        for name, reply in replies.items():
            if isinstance(reply, Reply) and reply.status == 200:
                self.on_read(VersionRead("read-compare", name, reply, _behind(answers[name], answers[_PRIMARY])))

    def _urls(self) -> dict[str, str]:
        return {_PRIMARY: self.primary_url, **{name: known.url for name, known in self.directory.replicas().items()}}

    def _calls(self, urls: dict[str, str], path: str) -> dict[str, Callable[[], Any]]:
        def ask(url: str) -> dict[str, Any]:
            return body_or_error(self.peers.attempt(Ask(f"{url}{path}")))

        return {name: partial(ask, url) for name, url in urls.items()}


def _node_answer(reply: Reply | PeerError) -> NodeAnswer:
    if isinstance(reply, Reply) and reply.status in {200, 404} and "position" in reply.body:
        found = reply.body
        return {"value": found.get("value"), "version": found.get("version", 0), "position": found["position"]}
    return {"error": failure(reply)}


def _analyze(primary: dict[str, Any], replicas: dict[str, dict[str, Any]]) -> Analysis:
    behind = {name: _behind(answer, primary) for name, answer in replicas.items()}
    consistent = [name for name, versions in behind.items() if versions == 0]
    return {
        "primary_version": primary.get("version"),
        "stale_replicas": [
            {"name": name, "version": replicas[name]["version"], "behind_by": versions}
            for name, versions in behind.items()
            if versions
        ],
        "consistent_replicas": consistent,
        "all_consistent": "error" not in primary and len(consistent) == len(replicas),
    }


def _analyze_content(primary: dict[str, Any], replicas: dict[str, dict[str, Any]]) -> Any:
    """Compare digests, which is meaningful only between nodes at the same position."""
    expected = primary["content"]
    contents = {name: answer["content"] for name, answer in replicas.items() if "error" not in answer["content"]}
    comparable = {name: content for name, content in contents.items() if content["at"] == expected.get("at")}
    diverged = [name for name, content in comparable.items() if content["digest"] != expected["digest"]]
    settled = len(comparable) == len(replicas) and "error" not in expected
    return {"digests_equal": not diverged if settled or diverged else None, "diverged": diverged}


def _behind(answer: dict[str, Any], primary: dict[str, Any]) -> int | None:
    """How many versions a replica is behind; all of them while it is in an earlier epoch; ``None`` if unknown."""
    if "error" in answer or "error" in primary:
        return None
    return versions_behind(Position.parse(answer["position"]), Position.parse(primary["position"]))


def versions_behind(position: Position, head: Position) -> int:
    if position.epoch != head.epoch:
        return max(1, head.version) if position < head else 0
    return max(0, head.version - position.version)


def _status(name: str, answer: dict[str, Any], primary: dict[str, Any], known: KnownReplica) -> ReplicaStatus:
    behind = _behind(answer, primary)
    found: ReplicaStatus = {
        "replica_id": name,
        "version": answer.get("version"),
        "is_consistent": behind == 0 and not known.diverged,
        "version_behind": behind,
        "lag_ms": 0.0 if behind == 0 else known.lag_ms,
        "acknowledged_version": known.acknowledged_version,
        "ack_lag_ms": known.ack_lag_ms,
        "pending": known.pending,
        "waiting": known.waiting,
        "applied_unacknowledged": known.applied_unacknowledged,
        "data_age_ms": answer.get("data_age_ms"),
        "diverged": known.diverged,
        "faults": known.faults,
        "resyncing": known.resyncing,
        "order": known.order,
    }
    if "error" in answer:
        found["error"] = answer["error"]
    elif answer.get("acknowledged_position") is not None:  # its own numbers are newer than the primary's
        acknowledged = Position.parse(answer["acknowledged_position"])
        waiting, unacknowledged = answer["waiting"], answer["applied_unacknowledged"]
        found |= {"waiting": waiting, "applied_unacknowledged": unacknowledged, "pending": waiting + unacknowledged}
        if acknowledged.epoch == primary.get("epoch"):
            found["acknowledged_version"] = acknowledged.version
    return found
