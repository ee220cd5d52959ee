"""The schedule of a replica: a delay model, the order, and what makes its draws repeatable."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from broker.delay.models import DelayModel
from broker.position import Position

Order = Literal["log", "arrival"]
_DRAWS = 2**53  # the integers that a double holds exactly


@dataclass(frozen=True)
class Schedule:
    """When entries are due, on one replica.

    Order ``log`` applies in log order, so that nothing is applied before what is ahead of it; ``arrival`` applies each
    entry when it is due. ``seed`` and ``replica`` give runs and replicas with the same model different draws.
    """

    model: DelayModel
    order: Order = "log"
    seed: int = 0
    replica: str = ""

    def delay_us(self, position: Position) -> int:
        """Return the delay of the entry at ``position`` in microseconds: the same on each call, and in each epoch."""
        share = 0.0 if self.model.is_constant else uniform(self.seed, self.replica, position)
        return round(self.model.draw_ms(share) * 1000)


def uniform(seed: int, replica: str, position: Position) -> float:
    """Return a number between 0 and 1, both excluded, that depends on nothing but the arguments."""
    # Without the epoch: after a reset the same writes get the same delays, so that a run can be repeated.
    digest = blake2b(f"{seed}/{replica}/{position.version}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 11) + 0.5) / _DRAWS
