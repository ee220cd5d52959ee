"""Sessions: what a person has written and read, as two positions that a cookie carries."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from flask import Request
from pydantic import Field

from broker.position import PATTERN, START, Position
from nodes.problem import Problem

HEADER = "Lab-Position"
TOKEN = {HEADER: Annotated[str, Field(pattern=f"^{PATTERN}$", description="the token of an earlier answer")]}
_COOKIE = "lab_session"
_END = f"{_COOKIE}=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict"


class Session(NamedTuple):
    """The newest position that the session wrote, and the newest that it was shown."""

    written: Position = START
    read: Position = START

    @property
    def token(self) -> Position:
        """What a node must have to show this session neither less than it wrote nor less than it saw."""
        return max(self.written, self.read)

    def after_write(self, position: Position) -> Session:
        """The session once it has written that."""
        return self._replace(written=max(self.written, position))

    def after_read(self, position: Position) -> Session:
        """The session once it was shown that."""
        return self._replace(read=max(self.read, position))

    @property
    def cookie(self) -> str:
        """The ``Set-Cookie`` header that gives the session to the person's browser or cookie jar."""
        return f"{_COOKIE}={self.written}.{self.read}; Path=/; HttpOnly; SameSite=Strict"


def of(request: Request) -> Session:
    """The session of a request: from the ``Lab-Position`` header, else the cookie. Raises ``Problem`` 400.

    A header says only where to begin, so it counts as written.
    """
    header = request.headers.get(HEADER)
    if header is not None:
        return Session(written=_position(HEADER, header))
    cookie = request.cookies.get(_COOKIE)
    if cookie is None:
        return Session()
    written, _, read = cookie.partition(".")
    try:
        return Session(_position(_COOKIE, written), _position(_COOKIE, read))
    except Problem as problem:
        raise end(problem) from None


def end(problem: Problem) -> Problem:
    """Take the session from who has it, along with the problem: its positions are of no use any more."""
    problem.headers["Set-Cookie"] = _END
    return problem


def _position(name: str, text: str) -> Position:
    try:
        return Position.parse(text)
    except ValueError as error:
        raise Problem(400, "malformed-position", "Malformed position", f"{name}: {error}.") from None
