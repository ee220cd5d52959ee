"""The reads that primary and replicas answer alike."""

from __future__ import annotations

from typing import Protocol

from broker.entry import Record
from broker.position import Position
from nodes.http import answers
from nodes.http.answers import DataAnswer, DigestAnswer, KeyAnswer, PageQuery, VersionAnswer, WaitQuery
from nodes.http.api import Api
from nodes.http.times import ms, timestamp
from nodes.runtime.gate import State


class Reads(Protocol):
    """What a node has to be able to do to be read from. Each answer is of one moment and names its state."""

    def state(self) -> State:
        """Where the node is."""

    def wait_for(self, target: Position, timeout_seconds: float) -> State:
        """Wait until the target is reached or the time is up; where the node is then."""

    def reached_us(self, position: Position) -> tuple[int, int] | None:
        """When that very change was committed and when it was applied here; ``None`` where nobody remembers."""

    def page(self, after: str, limit: int) -> tuple[State, list[Record], bool]:
        """Records with keys greater than ``after`` in key order, and whether there are more."""

    def get(self, key: str) -> tuple[State, Record | None]:
        """A key's record."""

    def digest(self) -> tuple[State, int, str]:
        """Number of keys, and digest of the content."""

    def now_us(self) -> int:
        """The log's clock."""


def add_reads(api: Api, source: str, reads: Reads) -> None:
    """Add the endpoints. ``source`` is the node's id."""

    def wait(query: WaitQuery) -> tuple[State, Position | None]:
        state = reads.state()
        target = query.target(state.position.epoch)
        if target is not None and state.position < target:
            state = reads.wait_for(target, query.timeout_ms / 1000)
        return state, target

    def require(query: WaitQuery) -> Position | None:
        if query.min_position is None and query.min_version is None:
            return None
        state, target = wait(query)
        answers.require(target, state, query.timeout_ms)
        return target

    @api.route("GET", "/version", admin=False, query=WaitQuery, answer=VersionAnswer)
    def version(query: WaitQuery) -> VersionAnswer:
        """Where the node is; with min_position or min_version, once it is there."""
        state, target = wait(query)
        answer = answers.version_answer(source, state, reads.now_us())
        if target is not None:
            reached = state.position.epoch == target.epoch and state.position >= target
            times_us = reads.reached_us(target) if reached else None
            answer["reached"] = reached
            answer["applied_at"] = timestamp(times_us[1]) if times_us else None
            answer["applied_after_ms"] = ms(times_us[1] - times_us[0]) if times_us else None
        return answer

    @api.route("GET", "/data", admin=False, query=PageQuery, answer=DataAnswer)
    def data(query: PageQuery) -> DataAnswer:
        """The data in key order, a page at a time."""
        target = require(query)
        state, records, more = reads.page(query.after(), query.limit)
        answers.require(target, state, query.timeout_ms)  # a reset may have come in between
        return answers.data_answer(source, state, records, more=more, now_us=reads.now_us())

    @api.route("GET", "/data/<key:key>", admin=False, query=WaitQuery, answer=KeyAnswer)
    def key(key: str, query: WaitQuery) -> KeyAnswer:
        """A key's value."""
        target = require(query)
        state, record = reads.get(key)
        answers.require(target, state, query.timeout_ms)
        return answers.key_answer(source, state, key, record)

    @api.route("GET", "/digest", admin=False, answer=DigestAnswer)
    def digest() -> DigestAnswer:
        """Number of keys and digest of the content, as one consistent cut."""
        state, keys, found = reads.digest()
        return {"source": source, "position": str(state.position), "keys": keys, "digest": found}
