"""What a fault is, and what of a replica it may get at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from broker.clock import LogClock
from broker.connection import Link
from nodes.http.api import Body
from nodes.replica.acknowledger import Acknowledger
from nodes.replica.inbox import Inbox
from nodes.replica.reader import Reader
from nodes.replica.store import ReplicaStore

DURATION_MS_MAX = 3_600_000


@dataclass(frozen=True)
class Parts:
    """A replica's parts, as far as a fault can break them. ``end_process`` ends it at once, without clearing up."""

    inbox: Inbox
    reader: Reader
    acknowledger: Acknowledger
    store: ReplicaStore
    clock: LogClock
    link: Link
    random: Random
    end_process: Callable[[], None]


class Fault(Body):
    """Something that is wrong with a replica, from ``begin`` until ``end``, or for ``duration_ms``.

    Each has a field ``fault`` with its name; the others are its parameters. A ``momentary`` one happens and is over.
    """

    momentary: ClassVar[bool] = False
    duration_ms: Annotated[int, Field(ge=1, le=DURATION_MS_MAX)] | None = None

    @model_validator(mode="after")
    def _lasts(self) -> Fault:
        if self.momentary and self.duration_ms is not None:
            raise ValueError("duration_ms: it is over at once")
        return self

    def begin(self, parts: Parts) -> None:
        """Break it."""
        raise NotImplementedError

    def end(self, parts: Parts) -> None:
        """Mend it; of what is momentary there is nothing to mend."""
