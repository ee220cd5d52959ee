"""When a replica is to apply an entry: a model, the order, and what makes its draws repeatable."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from broker.delay.fixed import Fixed
from broker.delay.model import DelayModel
from broker.position import Position

Order = Literal["log", "arrival"]
_DRAWS = 2**53


@dataclass(frozen=True)
class Schedule:
    """When entries are due, on one replica.

    Order ``log`` applies in log order, so that nothing is applied before what is ahead of it; ``arrival`` applies each
    entry when it is due. ``seed`` and ``replica`` tell runs and replicas apart that have the same model.
    """

    model: DelayModel
    order: Order = "log"
    seed: int = 0
    replica: str = ""

    def delay_us(self, position: Position) -> int:
        """The delay of the entry at ``position`` in microseconds: the same each time it is asked, and in each epoch."""
        if isinstance(self.model, Fixed):  # nothing to draw, and this is asked for every entry
            return round(self.model.ms * 1000)
        return round(self.model.draw_ms(uniform(self.seed, self.replica, position)) * 1000)


def uniform(seed: int, replica: str, position: Position) -> float:
    """A number between 0 and 1, both excluded, drawn from what it is for."""
    # Without the epoch: after a reset the same writes meet the same delays, so that a run can be repeated.
    digest = blake2b(f"{seed}/{replica}/{position.version}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 11) + 0.5) / _DRAWS
