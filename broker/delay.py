"""How late a replica is made: one small class per delay model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from broker.position import Position

DELAY_MS_MAX = 600_000


class DelayModel(Protocol):
    """How long after its publication an entry is due on a replica."""

    @property
    def mean_ms(self) -> float:
        """The expected delay in milliseconds."""

    def delay_us(self, position: Position) -> int:
        """The delay of the entry at ``position``, in microseconds: the same each time it is asked."""

    def as_json(self) -> dict[str, Any]:
        """The model as it is stored and shown: ``kind`` and its parameters."""


@dataclass(frozen=True)
class Fixed:
    """Every entry is equally late."""

    ms: float

    @property
    def mean_ms(self) -> float:
        """The delay itself."""
        return tidy(self.ms)

    def delay_us(self, position: Position) -> int:  # noqa: ARG002
        """The same for every position."""
        return round(self.ms * 1000)

    def as_json(self) -> dict[str, Any]:
        """``{"kind": "fixed", "ms": 500}``."""
        return {"kind": "fixed", "ms": tidy(self.ms)}


def tidy(milliseconds: float) -> float:
    """A whole number without its ``.0``, as a person would write it."""
    return int(milliseconds) if milliseconds == int(milliseconds) else milliseconds


def from_json(model: Any) -> DelayModel:
    """Read a delay model as ``as_json`` writes it. Raises ``ValueError`` with a sentence for anything else."""
    if not isinstance(model, dict) or model.get("kind") != "fixed" or set(model) != {"kind", "ms"}:
        raise ValueError('a delay model looks like {"kind": "fixed", "ms": 500}')
    ms = model["ms"]
    if isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 <= ms <= DELAY_MS_MAX:
        raise ValueError(f"ms is a number from 0 to {DELAY_MS_MAX}")
    return Fixed(ms)
