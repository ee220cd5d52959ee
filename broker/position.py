"""Where a node is in the history: ``<epoch>-<version>``, which is also the stream ID, and part of a session's token."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

# Up to 15 digits: exact in a Lua and a JSON number, and far below a stream ID's 64 bits.
PATTERN = "(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,14})"
_TEXT = re.compile(PATTERN, re.ASCII)


class Position(NamedTuple):
    """A point in the history, ordered by epoch, then version.

    ``epoch`` counts resets from 1, and the times that the log went on after it may have lost its end; ``version``
    counts acknowledged changes from 1, and is 0 right after a reset. ``Position(0, 0)`` is before everything: a replica
    that has read nothing yet.
    """

    epoch: int
    version: int

    def __str__(self) -> str:
        """``epoch-version``, as Redis prints the stream ID."""
        return f"{self.epoch}-{self.version}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read ``epoch-version``. Raises ``ValueError`` with a sentence for anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"a position looks like 1-42 (epoch, dash, version), not {text[:40]!r}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_entry(cls, name: str) -> Position:
        """The position that a stream ID is, which the log server has written, so that nothing is to be checked."""
        epoch, _, version = name.partition("-")
        return cls(int(epoch), int(version))

    def is_followed_by(self, other: Position) -> bool:
        """Whether nothing lies between the two: the next version, or the beginning of a later, empty epoch."""
        if other.epoch == self.epoch:
            return other.version == self.version + 1
        return other.epoch > self.epoch and other.version == 0

    def is_followed_by_all(self, others: Iterable[Position]) -> bool:
        """Whether nothing lies between this one and the first of the others, nor between them."""
        last = self
        for other in others:
            if not last.is_followed_by(other):
                return False
            last = other
        return True


START = Position(0, 0)
