"""What a delay model is, and the parts that the models share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol, Self

DELAY_MS_MAX = 600_000


class DelayModel(Protocol):
    """A distribution of delays in milliseconds, each from 0 to ten minutes."""

    kind: ClassVar[str]

    @property
    def mean_ms(self) -> float:
        """The expected delay."""

    def quantile_ms(self, share: float) -> float:
        """The delay that this share of all entries does not exceed; ``share`` lies between 0 and 1."""

    def cdf(self, ms: float) -> float:
        """The share of all entries whose delay is at most ``ms``."""

    def beyond_ms(self, ms: float) -> float:
        """The mean time by which a delay exceeds ``ms``: the integral of 1 - cdf from ``ms`` to ``DELAY_MS_MAX``.

        In closed form, because predictions need it for every moment that they are made for.
        """

    def draw_ms(self, uniform: float) -> float:
        """The delay that a number drawn uniformly between 0 and 1 stands for."""

    def as_json(self) -> dict[str, Any]:
        """The model as it is stored and shown: ``kind`` and its parameters."""


class Numbers:
    """What models have in common whose parameters are numbers: drawing by the quantile, and their JSON."""

    kind: ClassVar[str]

    def quantile_ms(self, share: float) -> float:
        """See ``DelayModel``."""
        raise NotImplementedError

    def draw_ms(self, uniform: float) -> float:
        """The quantile (inverse transform sampling), where it is no longer than a delay may be."""
        return min(self.quantile_ms(uniform), DELAY_MS_MAX)

    def as_json(self) -> dict[str, Any]:
        """``kind`` and the parameters."""
        return {"kind": self.kind, **{name: tidy(getattr(self, name)) for name in self._names()}}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Read the parameters, all of which have to be there and nothing else. Raises ``ValueError``."""
        names = cls._names()
        if set(parameters) != set(names):
            raise ValueError(f"{cls.kind} has the parameters {', '.join(names)}")
        for name, value in parameters.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= DELAY_MS_MAX:
                raise ValueError(f"{name} is a number from 0 to {DELAY_MS_MAX}")
        return cls(**parameters)

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]  # type: ignore[arg-type]


def tidy(number: float) -> float:
    """A whole number without its ``.0``, as a person would write it."""
    return int(number) if number == int(number) else number
