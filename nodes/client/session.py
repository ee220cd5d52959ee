"""Sessions: what a person has written and read in a lab, as two positions that a cookie carries."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from flask import Request
from pydantic import Field

from broker.position import PATTERN, START, Position
from nodes.http.problem import Problem

HEADER = "Lab-Position"
TOKEN = {
    HEADER: Annotated[
        str, Field(pattern=rf"^{PATTERN}(\.[0-9A-Za-z-]+)?$", description="the token of an earlier answer")
    ]
}
_COOKIE = "lab_session"
_ATTRIBUTES = "Path=/; HttpOnly; SameSite=Strict"


class Session(NamedTuple):
    """The newest position that the session wrote, and the newest that it was shown, in this lab.

    ``least``: a bare position that a request asked for, of which nothing shows where it is from; it is waited for, but
    is no part of what the session wrote or was shown.
    """

    lab: str
    written: Position = START
    read: Position = START
    least: Position = START

    @property
    def position(self) -> Position:
        """What a node must have to show this session neither less than it wrote nor less than it saw."""
        return max(self.written, self.read, self.least)

    @property
    def token(self) -> str:
        """The position for a later request of the session, tied to the lab that gave it."""
        return f"{self.position}.{self.lab}"

    def after_write(self, position: Position) -> Session:
        """The session once it has written that."""
        return self._replace(written=max(self.written, position))

    def after_read(self, position: Position) -> Session:
        """The session once it was shown that."""
        return self._replace(read=max(self.read, position))

    @property
    def cookie(self) -> str:
        """The ``Set-Cookie`` header that gives the session to the person's browser or cookie jar.

        A browser sends a host's cookies to all of its ports, so each lab has a cookie of its own name.
        """
        return f"{_COOKIE}_{self.lab}={self.written}.{self.read}; {_ATTRIBUTES}"


def of(request: Request, lab: str, *, required: bool = False) -> Session:
    """The session of a request to this lab: from the ``Lab-Position`` header, else the cookie.

    Raises ``Problem``: 400 for no session at all; 412 for a token of another lab and, if a session is ``required``, for
    a cookie of another lab without one of this lab. A token says only where to start, so it counts as written.
    """
    header = request.headers.get(HEADER)
    if header is not None:
        text, dot, issuer = header.partition(".")
        position = _position(HEADER, text)
        if not dot:
            return Session(lab, least=position)
        if issuer != lab:
            raise _foreign(lab, f"{HEADER}: {header[:60]!r} is a token")
        return Session(lab, written=position)
    cookie = request.cookies.get(f"{_COOKIE}_{lab}")
    if cookie is None:
        if required and any(name.startswith(_COOKIE) for name in request.cookies):
            raise _foreign(lab, "The cookie is a session")
        return Session(lab)
    written, _, read = cookie.partition(".")
    try:
        return Session(lab, _position(_COOKIE, written), _position(_COOKIE, read))
    except Problem as problem:
        raise end(problem, lab) from None


def end(problem: Problem, lab: str) -> Problem:
    """Take the session from who has it, along with the problem: its positions are of no use any more."""
    problem.headers["Set-Cookie"] = f"{_COOKIE}_{lab}=; Max-Age=0; {_ATTRIBUTES}"
    return problem


def _foreign(lab: str, what: str) -> Problem:
    detail = f"{what} of another lab; this is lab {lab}. Start a new session."
    problem = Problem(412, "foreign-session", "Session of another lab", detail, lab=lab)
    problem.headers["Set-Cookie"] = Session(lab).cookie  # an empty one, and with the next request it has started
    return problem


def _position(name: str, text: str) -> Position:
    try:
        return Position.parse(text)
    except ValueError as error:
        raise Problem(400, "malformed-position", "Malformed position", f"{name}: {error}.") from None
