"""What the client answers."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from broker.delay.models import Order
from nodes.http.api import Query, TimeoutMs
from nodes.http.writing import WriteAnswer

WAIT_TIMEOUT_MS = 5000


class CompareQuery(Query):
    """Whether to compare content too."""

    digest: Annotated[bool, Field(description="compare digests as well as versions")] = False


class TimeoutQuery(Query):
    """How long to wait for convergence."""

    timeout_ms: TimeoutMs = WAIT_TIMEOUT_MS


class TokenAnswer(WriteAnswer):
    """An acknowledged write, and the token with which a later read is sure to see it."""

    token: str


class ImmediateRead(TypedDict):
    """What a replica answered right after the write, or ``error``."""

    version: NotRequired[int]
    has_new_data: NotRequired[bool]
    data_age_ms: NotRequired[float | None]
    error: NotRequired[str]


class WriteAndReadAnswer(TypedDict):
    """A write, and what each replica answered right after it."""

    write_result: WriteAnswer
    immediate_reads: dict[str, ImmediateRead]
    stale_read_count: int
    total_replicas: int
    elapsed_ms: float
    note: str


class StaleReplica(TypedDict):
    """A replica that has not got the primary's version. ``behind_by`` counts versions."""

    name: str
    version: int
    behind_by: int


class Analysis(TypedDict):
    """The comparison. ``diverged``: equal position and another digest, which must never be (only with ``digest``)."""

    primary_version: int | None
    stale_replicas: list[StaleReplica]
    consistent_replicas: list[str]
    all_consistent: bool
    digests_equal: NotRequired[bool | None]
    diverged: NotRequired[list[str]]


class CompareAnswer(TypedDict):
    """What every node answered, and how the replicas compare with the primary."""

    primary: dict[str, Any]
    replicas: dict[str, dict[str, Any]]
    analysis: Analysis


class NodeAnswer(TypedDict):
    """A node's answer about a key; version 0 where it is missing, ``error`` where there is none."""

    value: NotRequired[Any]
    version: NotRequired[int]
    position: NotRequired[str]
    error: NotRequired[str]


class EverywhereAnswer(TypedDict):
    """What each node answers for a key now, by name; the primary is ``primary``."""

    key: str
    nodes: dict[str, NodeAnswer]


class ReplicaStatus(TypedDict):
    """A replica now.

    ``lag_ms``: age of the oldest write it has not applied; ``null`` where nobody knows. ``resyncing``: why its content
    is being replaced by a snapshot, or empty. ``order``: in which order it applies; ``null`` if unknown.
    """

    replica_id: str
    version: int | None
    is_consistent: bool
    version_behind: int | None
    lag_ms: float | None
    data_age_ms: float | None
    diverged: bool
    faults: list[str]
    resyncing: str
    order: Order | None
    error: NotRequired[str]


class StatusAnswer(TypedDict):
    """All nodes now. ``waiting_for_consistency``: a write-and-wait of this client is in progress."""

    primary_version: int | None
    primary_write_id: str | None
    all_consistent: bool
    waiting_for_consistency: bool
    last_poll_time: str | None
    replicas: list[ReplicaStatus]
    error: NotRequired[str]


class ReplicaWait(TypedDict):
    """When a replica had the write.

    ``applied_after_ms``: commit to apply, by the log's clock, ``null`` when the replica was restarted since;
    ``observed_after_ms``: acknowledged to observed, by the client's clock.
    """

    applied_after_ms: NotRequired[float | None]
    observed_after_ms: NotRequired[float]
    attempts: int
    error: NotRequired[str]


class WriteAndWaitAnswer(TypedDict):
    """A write, and how long convergence took. ``attempts``: the most blocking reads that any replica needed."""

    write_result: WriteAnswer
    consistency_achieved: bool
    consistency_time_ms: float | None
    attempts: int
    replicas: dict[str, ReplicaWait]
    missing: list[str]
    timeout_ms: int
