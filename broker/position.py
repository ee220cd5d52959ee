"""A position in the history: ``<epoch>-<version>``, which is also the stream ID and part of a session's token."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

# Up to 15 digits: exact in a Lua and a JSON number, and far below a stream ID's 64 bits.
PATTERN = "(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,14})"
_TEXT = re.compile(PATTERN, re.ASCII)


class Position(NamedTuple):
    """A point in the history. ``epoch`` counts, from 1, resets and continuations after the log may have lost its end;
    ``version`` counts acknowledged changes from 1, and is 0 right after a reset. 0-0 precedes everything.
    """

    epoch: int
    version: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.version}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read ``epoch-version``. Raises ``ValueError`` for anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"a position looks like 1-42 (epoch, dash, version), not {text[:40]!r}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_entry(cls, name: str) -> Position:
        """Return the position for a stream ID; not checked, because it comes from the log server."""
        epoch, _, version = name.partition("-")
        return cls(int(epoch), int(version))

    def is_followed_by(self, other: Position) -> bool:
        """Return whether nothing lies between the two: the next version, or the start of a later, empty epoch."""
        if other.epoch == self.epoch:
            return other.version == self.version + 1
        return other.epoch > self.epoch and other.version == 0

    def is_followed_by_all(self, others: Iterable[Position]) -> bool:
        return all(last.is_followed_by(other) for last, other in pairwise([self, *others]))


START = Position(0, 0)
