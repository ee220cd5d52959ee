"""Reports of replicas on what they acknowledge, published as it happens on the channel ``lab14:acknowledged``.

A report is JSON text: the replica, the time, how many applied entries are not acknowledged, and what is acknowledged
with this report, each run of consecutive positions as its first position and its length.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Self

from broker.connection import Client, translated
from broker.position import Position

POSITIONS_MAX = 1000  # in one report


class Report(NamedTuple):
    """``at_us``: microseconds since 1970 by the log's clock; ``unacknowledged``: applied entries, after this report."""

    replica: str
    at_us: int
    unacknowledged: int
    acknowledged: Sequence[Position] = ()

    def as_text(self) -> str:
        runs: dict[str, int] = {}
        first, following = "", (0, -1)
        for position in self.acknowledged:
            if position != following:
                first = str(position)
                runs[first] = 0
            runs[first] += 1
            following = position[0], position[1] + 1
        fields = self._asdict() | {"acknowledged": runs}
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read a report. Raises ``ValueError``, ``TypeError``, ``KeyError`` or ``AttributeError`` for another text."""
        found = json.loads(text)
        runs = [(Position.parse(first), length) for first, length in found.pop("acknowledged").items()]
        if sum(length for _, length in runs) > POSITIONS_MAX:
            raise ValueError(f"more than {POSITIONS_MAX} positions")
        positions = (Position(first.epoch, first.version + n) for first, length in runs for n in range(length))
        return cls(**found, acknowledged=tuple(positions))


def channel(namespace: str) -> str:
    return f"{namespace}:acknowledged"


class Reports:
    """A subscription to the reports; those published while it is not connected are missed. Not thread-safe."""

    def __init__(self, client: Client, namespace: str = "lab14") -> None:
        untyped: Any = client
        self._pubsub = untyped.pubsub()
        with translated():
            self._pubsub.subscribe(channel(namespace))

    def wait(self, timeout_seconds: float) -> Iterator[Report]:
        """Wait for reports, and return those that have arrived. Raises ``LogError``."""
        with translated():
            while (found := self._pubsub.get_message(timeout=timeout_seconds)) is not None:
                timeout_seconds = 0
                if found["type"] == "message":
                    with suppress(ValueError, TypeError, KeyError, AttributeError):  # another program can publish, too
                        yield Report.from_text(found["data"])

    def close(self) -> None:
        self._pubsub.close()
