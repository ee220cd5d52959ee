"""What the probe needs of a node of a replicated store."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from lab.errors import LabError

PREFIX = "lab_probe"  # of everything that the probe creates in a store


class TargetError(LabError):
    """Raised when a run cannot go on: with a sentence that says why, and what to do."""


class NotNow(Exception):
    """Raised when one read or write failed, although the next can succeed: a lost connection, a canceled query.

    A write may or may not have taken effect.
    """


class Shown(NamedTuple):
    """A read's numbers by key; a key without a number is absent. ``is_replica``: the node's role at the read.

    ``requests``: more than one if the store has no statement that reads several keys.
    """

    numbers: dict[str, int]
    is_replica: bool
    requests: int = 1


@dataclass(frozen=True)
class Description:
    """What a run will do on a node: its statements, with values left out, and the GRANTs that are missing."""

    statements: Sequence[str]
    missing: Sequence[str] = ()


@dataclass(frozen=True)
class Settings:
    """What a node is set to that a reader's staleness depends on, by the name that the store gives it.

    ``identity``: the same on all nodes of one store, ``None`` if it cannot be known. ``warnings``: sentences about
    settings that surprise a reader.
    """

    identity: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()


class Target(Protocol):
    """A node over one connection, which is opened when needed and again after it was lost. Used by one thread.

    Every method can raise ``TargetError``, and ``write`` and ``read`` also ``NotNow``.
    """

    @property
    def name(self) -> str:
        """The node's address without a password."""

    def describe(self) -> Description:
        """Change nothing."""

    def settings(self) -> Settings: ...

    def prepare(self) -> None:
        """Create what the run needs, on the primary. Refuse what exists and was not created by a probe."""

    def write(self, key: str, number: int) -> None:
        """Set the key to the number unless it has a higher one; return when the store has acknowledged it."""

    def read(self, keys: Sequence[str]) -> Shown:
        """Read all keys in one statement."""

    def remove(self) -> None:
        """Remove everything that a probe created, on the primary. Nothing to remove is no error."""

    def close(self) -> None: ...
