"""Delay models: distributions of delays, one self-contained class each."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:  # a node draws single delays, without numpy
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DELAY_MS_MAX = 600_000
Order = Literal["log", "arrival"]  # of applying entries: as in the log, or each entry when it is due
_NORMAL = NormalDist()
_SQRT_HALF = math.sqrt(0.5)


class DelayModel(ABC):
    """A distribution of delays in milliseconds, each at most ten minutes. Subclasses are frozen dataclasses, registered
    under their ``kind``; subclasses with non-numeric parameters override ``from_parameters`` and ``as_json``.
    """

    kind: ClassVar[str]
    is_constant: ClassVar[bool] = False  # then a schedule does not draw a random number for each entry
    kinds: ClassVar[dict[str, type[DelayModel]]] = {}

    def __init_subclass__(cls) -> None:
        cls.kinds[cls.kind] = cls

    if TYPE_CHECKING:  # the mean is a parameter of some models, and a property of the others

        @property
        def mean_ms(self) -> float: ...

    @abstractmethod
    def quantile_ms(self, share: float) -> float:
        """Return the delay that this share of all entries does not exceed; ``share`` lies between 0 and 1."""

    @abstractmethod
    def cdf(self, ms: float) -> float:
        """Return the share of all entries whose delay is at most ``ms``."""

    @abstractmethod
    def beyond_ms(self, ms: float) -> float:
        """Return the integral of 1 - cdf from ``ms`` to ``DELAY_MS_MAX``, in closed form for speed."""

    @abstractmethod
    def sample(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Return an array of independent delays, for simulations."""

    def draw_ms(self, uniform: float) -> float:
        """Return the delay for a number drawn uniformly between 0 and 1, by inverse transform sampling."""
        return min(self.quantile_ms(uniform), DELAY_MS_MAX)

    @property
    def least_ms(self) -> float:
        return self.quantile_ms(0)

    @property
    def measured_delays(self) -> int:
        return 0

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **{name: tidy(getattr(self, name)) for name in self._names()}}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        names = cls._names()
        if set(parameters) != set(names):
            raise ValueError(f"{cls.kind} has the parameters {', '.join(names)}")
        for name, value in parameters.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= DELAY_MS_MAX:
                raise ValueError(f"{name} must be a number from 0 to {DELAY_MS_MAX}")
        return cls(**parameters)

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]  # type: ignore[arg-type]


def from_json(model: Any) -> DelayModel:
    """Read a delay model as ``as_json`` writes it. Raises ``ValueError`` for anything else."""
    if not isinstance(model, dict) or not isinstance(model.get("kind"), str):
        raise ValueError('a delay model looks like {"kind": "fixed", "ms": 500}')
    parameters = dict(model)
    kind = parameters.pop("kind")
    if kind not in DelayModel.kinds:
        raise ValueError(f"kind must be one of {', '.join(DelayModel.kinds)}, not {kind[:40]!r}")
    return DelayModel.kinds[kind].from_parameters(parameters)


def tidy(number: float) -> float:
    """Return a whole number without its ``.0``, as a person would write it."""
    return int(number) if number == int(number) else number


@dataclass(frozen=True)
class Fixed(DelayModel):
    kind = "fixed"
    is_constant = True
    ms: float

    @property
    def mean_ms(self) -> float:
        return tidy(self.ms)

    def quantile_ms(self, share: float) -> float:  # noqa: ARG002
        return self.ms

    def cdf(self, ms: float) -> float:
        return float(ms >= self.ms)

    def beyond_ms(self, ms: float) -> float:
        return max(0.0, self.ms - ms)

    def sample(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return random.uniform(self.ms, self.ms, shape)


@dataclass(frozen=True)
class Uniform(DelayModel):
    kind = "uniform"
    low_ms: float
    high_ms: float

    def __post_init__(self) -> None:
        if self.low_ms >= self.high_ms:
            raise ValueError("low_ms must be less than high_ms")

    @property
    def mean_ms(self) -> float:
        return (self.low_ms + self.high_ms) / 2

    def quantile_ms(self, share: float) -> float:
        return self.low_ms + share * (self.high_ms - self.low_ms)

    def cdf(self, ms: float) -> float:
        return min(1.0, max(0.0, (ms - self.low_ms) / (self.high_ms - self.low_ms)))

    def beyond_ms(self, ms: float) -> float:
        if ms <= self.low_ms:
            return self.mean_ms - ms
        return max(0.0, self.high_ms - ms) ** 2 / (2 * (self.high_ms - self.low_ms))

    def sample(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return random.uniform(self.low_ms, self.high_ms, shape)


@dataclass(frozen=True)
class Exponential(DelayModel):
    """Mostly short delays and some long ones: the remaining wait never depends on the wait so far."""

    kind = "exponential"
    mean_ms: float

    def __post_init__(self) -> None:
        if self.mean_ms <= 0:
            raise ValueError("mean_ms must be more than 0")

    def quantile_ms(self, share: float) -> float:
        return -self.mean_ms * math.log1p(-share)

    def cdf(self, ms: float) -> float:
        return -math.expm1(-max(0.0, ms) / self.mean_ms)

    def beyond_ms(self, ms: float) -> float:
        return self.mean_ms * (math.exp(-ms / self.mean_ms) - math.exp(-DELAY_MS_MAX / self.mean_ms))

    def sample(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return random.exponential(self.mean_ms, shape)


@dataclass(frozen=True)
class Lognormal(DelayModel):
    """The logarithm of the delay is normal, with standard deviation ``sigma``; half are at most ``median_ms``."""

    kind = "lognormal"
    median_ms: float
    sigma: float

    def __post_init__(self) -> None:
        if self.median_ms <= 0 or not 0 < self.sigma <= 5:
            raise ValueError("median_ms must be more than 0, and sigma more than 0 and at most 5")

    @cached_property
    def mean_ms(self) -> float:
        return self.median_ms * math.exp(self.sigma**2 / 2)

    def quantile_ms(self, share: float) -> float:
        return self.median_ms * math.exp(self.sigma * _NORMAL.inv_cdf(share)) if share > 0 else 0.0

    def cdf(self, ms: float) -> float:
        return _phi(self._z(ms))

    def beyond_ms(self, ms: float) -> float:
        # The price of a call option by Black and Scholes, less what lies beyond the longest delay.
        z = self._z(ms)
        return self._bounded_mean_ms - self.mean_ms * _phi(z - self.sigma) - ms * _phi(-z)

    def sample(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return random.lognormal(math.log(self.median_ms), self.sigma, shape)

    @cached_property
    def _bounded_mean_ms(self) -> float:
        """The mean of the drawn delays, which are cut off at the longest delay."""
        z = self._z(DELAY_MS_MAX)
        return self.mean_ms * _phi(z - self.sigma) + DELAY_MS_MAX * _phi(-z)

    def _z(self, ms: float) -> float:
        return math.log(ms / self.median_ms) / self.sigma if ms > 0 else -math.inf


def _phi(z: float) -> float:
    """Return the standard normal CDF, four times as fast as ``NormalDist.cdf``."""
    return math.erfc(-z * _SQRT_HALF) / 2


@dataclass(frozen=True)
class Pareto(DelayModel):
    """A heavy tail starting at ``scale_ms``: the smaller ``alpha``, the heavier."""

    kind = "pareto"
    scale_ms: float
    alpha: float

    def __post_init__(self) -> None:
        if self.scale_ms <= 0 or not 1 < self.alpha <= 1000:
            raise ValueError("scale_ms must be more than 0, and alpha more than 1 (for a mean to exist), at most 1000")

    @property
    def mean_ms(self) -> float:
        return self.alpha * self.scale_ms / (self.alpha - 1)

    def quantile_ms(self, share: float) -> float:
        return float(self.scale_ms * (1 - share) ** (-1 / self.alpha))

    def cdf(self, ms: float) -> float:
        return 1 - (self.scale_ms / ms) ** self.alpha if ms > self.scale_ms else 0.0

    def beyond_ms(self, ms: float) -> float:
        start = max(ms, self.scale_ms)
        power = self.alpha - 1
        tail = -math.expm1(-power * math.log(DELAY_MS_MAX / start)) / power  # exact also if alpha is nearly 1
        return float(start - ms + start * (self.scale_ms / start) ** self.alpha * tail)

    def sample(self, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return self.scale_ms * (1 + random.pareto(self.alpha, shape))
