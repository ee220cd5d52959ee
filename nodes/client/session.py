"""Sessions: a user's writes and reads in a lab, as two positions in a cookie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from pydantic import Field

from broker.position import PATTERN, START, Position
from nodes.client.errors import ForeignSession, MalformedPosition

HEADER = "Lab-Position"
_TOKEN = Field(pattern=rf"^{PATTERN}(\.[0-9A-Za-z-]+)?$", description="the token of an earlier response")
TOKEN = {HEADER: Annotated[str, _TOKEN]}
_COOKIE = "lab_session"
_ATTRIBUTES = "Path=/; HttpOnly; SameSite=Strict"


class Session(NamedTuple):
    """The newest position that the session wrote, and the newest that it was shown, in this lab.

    ``least``: a bare position in a request, without evidence of its origin; a read waits for it, but it does not count
    as written or shown.
    """

    lab: str
    written: Position = START
    read: Position = START
    least: Position = START

    @property
    def position(self) -> Position:
        """The position that a node needs to show this session everything it wrote and saw."""
        return max(self.written, self.read, self.least)

    @property
    def token(self) -> str:
        return f"{self.position}.{self.lab}"

    def after_write(self, position: Position) -> Session:
        return self._replace(written=max(self.written, position))

    def after_read(self, position: Position) -> Session:
        return self._replace(read=max(self.read, position))

    @property
    def cookie(self) -> str:
        """A ``Set-Cookie`` header. A browser sends a host's cookies to all ports, so the name contains the lab's id."""
        return f"{_COOKIE}_{self.lab}={self.written}.{self.read}; {_ATTRIBUTES}"


def end(lab: str) -> str:
    """The ``Set-Cookie`` header that removes a session whose positions are no longer valid."""
    return f"{_COOKIE}_{lab}=; Max-Age=0; {_ATTRIBUTES}"


def session_of(token: str | None, cookies: Mapping[str, str], lab: str, *, required: bool = False) -> Session:
    """The session of a request to this lab: from the ``Lab-Position`` header, else the cookie.

    Raises ``MalformedPosition``, or ``ForeignSession`` for a token of another lab and, if a session is ``required``,
    for a cookie of another lab without one of this lab. A token is only a starting point, so it counts as written.
    """
    if token is not None:
        text, dot, issuer = token.partition(".")
        position = _position(HEADER, text)
        if not dot:
            return Session(lab, least=position)
        if issuer != lab:
            raise _foreign(lab, f"{HEADER}: {token[:60]!r} is a token")
        return Session(lab, written=position)
    cookie = cookies.get(f"{_COOKIE}_{lab}")
    if cookie is None:
        if required and any(name.startswith(_COOKIE) for name in cookies):
            raise _foreign(lab, "The cookie is a session")
        return Session(lab)
    written, _, read = cookie.partition(".")
    return Session(lab, _position(_COOKIE, written, end(lab)), _position(_COOKIE, read, end(lab)))


def _foreign(lab: str, what: str) -> ForeignSession:
    detail = f"{what} of another lab; this is lab {lab}. Start a new session"
    return ForeignSession(detail, Session(lab).cookie, lab=lab)  # an empty session, for the next request


def _position(name: str, text: str, cookie: str | None = None) -> Position:
    try:
        return Position.parse(text)
    except ValueError as error:
        raise MalformedPosition(f"{name}: {error}", cookie) from None
