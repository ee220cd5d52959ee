"""The specification of an experiment, with its bounds: one that could run for more than an hour is rejected."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, RootModel, ValidationError, model_validator
from typing_extensions import TypedDict

from broker.delay.models import DELAY_MS_MAX
from nodes.http.api import TIMEOUT_MS_MAX, Body
from nodes.http.level import LEVELS, QUORUM_MAX, Level
from nodes.http.writing import SettingsBody

SECONDS_MAX = 3600
REQUESTS_AT_ONCE = 256
WARM_UP_SECONDS_MAX = 10.0
HORIZON_MS_UNLESS_GIVEN = 60_000
_GRACE_SECONDS = 30.0  # to configure the replicas, and for a machine that cannot keep up with the load
_PATH = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*"
Rate = Annotated[float, Field(ge=0.1, le=200)]
WaitMs = Annotated[int, Field(ge=1, le=TIMEOUT_MS_MAX)]
HorizonMs = Annotated[float, Field(ge=1, le=DELAY_MS_MAX)]
Replicas = Annotated[int, Field(ge=1, le=QUORUM_MAX)]


class Spec(Body):
    """``settings``: by replica id, restored afterwards. ``seed``: determines the times of writes and reads."""

    settings: Annotated[dict[str, SettingsBody], Field(max_length=20)] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0

    @property
    def seconds(self) -> float:
        raise NotImplementedError

    @model_validator(mode="after")
    def _ends(self) -> Spec:
        if self.seconds > SECONDS_MAX:
            raise ValueError(f"this could take {self.seconds:,.0f} s; at most {SECONDS_MAX} s are allowed")
        return self


class Windows(Spec):
    """Time until every replica has a write: ``writes`` at random times, ``rate`` per second on average."""

    kind: Literal["windows"]
    writes: Annotated[int, Field(ge=1, le=20_000)] = 200
    rate: Rate = 10.0
    timeout_ms: WaitMs = 30_000

    @property
    def seconds(self) -> float:
        return self.writes / self.rate + _waits_seconds(self.writes, self.timeout_ms) + _GRACE_SECONDS


class Staleness(Spec):
    """Probability that a read is stale, by the time since its write.

    Writes at random times, ``rate`` per second on average, each followed by reads at random times up to
    ``horizon_ms`` (unless given, three times the longest mean delay, at most a minute), spread evenly over ``steps``
    steps. At most one read in each step of each replica follows a write.
    """

    kind: Literal["staleness"]
    reads: Annotated[int, Field(ge=100, le=200_000)] = 20_000
    reads_per_second: Annotated[float, Field(ge=1, le=1000)] = 400.0
    rate: Rate = 20.0
    steps: Annotated[int, Field(ge=2, le=200)] = 30
    horizon_ms: HorizonMs | None = None

    @property
    def seconds(self) -> float:
        writing_seconds = WARM_UP_SECONDS_MAX + (1 + self.writes(replicas=1)) / self.rate
        return writing_seconds + (self.horizon_ms or HORIZON_MS_UNLESS_GIVEN) / 1000 + _GRACE_SECONDS

    def writes(self, replicas: int) -> int:
        """The number of writes after the warm-up, enough for all reads."""
        return math.ceil(self.reads / min(self.reads_per_second / self.rate, self.steps * replicas))


class Levels(Spec):
    """Cost of each consistency level: a write, immediately followed by a read at the level, ``reads`` times each."""

    kind: Literal["levels"]
    reads: Annotated[int, Field(ge=1, le=10_000)] = 100
    rate: Rate = 20.0
    levels: Annotated[list[Level], Field(default_factory=lambda: list(LEVELS), min_length=1, max_length=len(LEVELS))]
    max_lag_ms: Annotated[float, Field(ge=0, le=DELAY_MS_MAX)] = 200.0
    r: Replicas = 2
    timeout_ms: WaitMs = 30_000

    @property
    def seconds(self) -> float:
        of_each = self.reads / self.rate + _waits_seconds(self.reads, self.timeout_ms)
        return len(self.levels) * of_each + _GRACE_SECONDS


class Quorum(Spec):
    """Probability that a read of ``r`` replicas misses a write that ``w`` of ``n`` replicas have acknowledged.

    Writes at random times, ``rate`` per second on average, each of a key of its own, followed by reads at random times
    up to ``horizon_ms`` after w acknowledgements, spread evenly over ``steps`` steps. Then, for k-staleness, writes of
    one key and a tenth as many reads at random moments. ``n``: the replicas that must be registered, if given.
    """

    kind: Literal["quorum"]
    n: Replicas | None = None
    r: Replicas = 1
    w: Replicas = 1
    reads: Annotated[int, Field(ge=100, le=200_000)] = 20_000
    reads_per_second: Annotated[float, Field(ge=1, le=1000)] = 150.0
    rate: Rate = 30.0
    steps: Annotated[int, Field(ge=2, le=200)] = 15
    horizon_ms: HorizonMs | None = None
    timeout_ms: WaitMs = 5000

    @property
    def seconds(self) -> float:
        loads_seconds = (self.writes + 1) / self.rate + self.one_key_reads / self.reads_per_second
        horizon_seconds = (self.horizon_ms or HORIZON_MS_UNLESS_GIVEN) / 1000
        writes_besides = self.rate * (2 * WARM_UP_SECONDS_MAX + self.one_key_reads / self.reads_per_second)
        requests = self.reads + self.one_key_reads + self.writes + math.ceil(writes_besides)
        waits_seconds = 3 * self.timeout_ms / 1000 + _waits_seconds(requests, self.timeout_ms)
        return 2 * WARM_UP_SECONDS_MAX + loads_seconds + horizon_seconds + waits_seconds + _GRACE_SECONDS

    @property
    def writes(self) -> int:
        """The number of writes of keys of their own after the warm-up, enough for all reads."""
        return math.ceil(self.reads / min(self.reads_per_second / self.rate, self.steps))

    @property
    def one_key_reads(self) -> int:
        return self.reads // 10

    @model_validator(mode="after")
    def _is_possible(self) -> Quorum:
        if self.n is not None and max(self.r, self.w) > self.n:
            raise ValueError(f"r={self.r} and w={self.w} must be at most n={self.n}")
        return self


Single = Windows | Staleness | Levels | Quorum
KINDS: tuple[str, ...] = (*(get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(Single)), "sweep")


class Sweep(Spec):
    """Another kind, once for each value of a ``parameter`` such as ``rate`` or ``settings.lab14-replica2.delay_ms``."""

    kind: Literal["sweep"]
    parameter: Annotated[str, Field(pattern=f"^{_PATH}$", max_length=100)]
    values: Annotated[list[Any], Field(min_length=2, max_length=20)]
    experiment: Annotated[Single, Field(discriminator="kind")]

    @property
    def steps(self) -> list[Single]:
        return [self._step(value) for value in self.values]

    def _step(self, value: Any) -> Single:
        try:
            found = self.experiment.model_dump(exclude_none=True)
            _put(found, self.parameter, value)
            return type(self.experiment).model_validate(found)
        except ValidationError as failure:
            first = failure.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"values: {str(value)[:40]!r} for {place}: {first['msg']}") from None

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @model_validator(mode="after")
    def _sweeps(self) -> Sweep:
        if self.parameter == "kind":
            raise ValueError("parameter: the kind stays the same")
        if self.settings:
            raise ValueError("settings: belong to the experiment that is swept")
        return self


class ExperimentBody(RootModel[Annotated[Single | Sweep, Field(discriminator="kind")]]):
    TAGS: ClassVar[int] = 1  # an error's location starts with the kind, which is not a field


class Experiment(TypedDict):
    """Times are RFC 3339; ``progress`` ranges from 0 to 1; ``reason``: why it failed or was canceled.

    ``result`` is partial while it runs, and ``null`` before. In a list both ``spec`` and ``result`` are ``null``.
    """

    id: str
    kind: str
    state: Literal["queued", "running", "finished", "failed", "cancelled"]
    progress: float
    reason: str | None
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    spec: dict[str, Any] | None
    result: dict[str, Any] | None


ENDED = frozenset({"finished", "failed", "cancelled"})


def _waits_seconds(requests: int, wait_ms: float) -> float:
    """Upper bound of the seconds from the last request to the last response, if each takes ``wait_ms``."""
    return wait_ms / 1000 * (1 + requests / REQUESTS_AT_ONCE)


def _put(place: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise ValueError(f"parameter: {name} has no parts")
    if last == "delay_ms":
        place.pop("model", None)
    place[last] = value
