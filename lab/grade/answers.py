"""The answers of a graded program, read strictly: exactly what the contract of a replica says, within bounds."""

import socket
import time
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from broker.position import Position
from lab.errors import LabError
from lab.grade import words
from lab.terminal import plain
from nodes.http import strict_json

ANSWER_SECONDS = 5.0
_BYTES_MAX = 2**20
_SHOWN_MAX = 80
_VERSION_MAX = 10**15
_REFUSED = 503


class Nonsense(LabError):
    """Raised for an answer that no replica gives."""

    exit_code = 2


class NoAnswer(Exception):
    """Raised without an answer to judge: the program is dead, or cannot answer now. ``refused``: it says so, by 503."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


class Value(NamedTuple):
    """What a read of a key shows; version 0 if it is missing."""

    position: Position
    version: int
    value: str | None


class _Bounded(socket.socket):
    """A socket that is read from until a moment, however slowly the bytes come."""

    until = 0.0

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(max(0.001, self.until - time.monotonic()))
        return super().recv_into(*arguments, **options)


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        plain_socket: socket.socket = self.sock
        self.sock = self.bounded = _Bounded(fileno=plain_socket.detach())

    def answer_within(self, seconds: float) -> HTTPResponse:
        self.bounded.until = time.monotonic() + seconds
        return self.getresponse()


class Program:
    """Reads of a program over one kept connection."""

    def __init__(self, url: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        parts = urlsplit(url)
        self._seconds = answer_seconds
        self._connection = _Connection(parts.hostname or "", parts.port, timeout=answer_seconds)

    def position(self) -> Position:
        """Read the position. Raises ``NoAnswer`` and ``Nonsense``."""
        answer = self._get("/version")
        if answer.status != 200:
            raise answer.nonsense("only 200 and 503 are answers to it")
        position = answer.position()
        if (answer.integer("epoch"), answer.integer("version")) != position:
            raise answer.nonsense(f"epoch and version are not those of the position {position}")
        return position

    def value(self, key: str) -> Value:
        """Read a key. Raises ``NoAnswer`` and ``Nonsense``."""
        answer = self._get(words.path(key))
        if answer.status == 404:
            return Value(answer.position(), 0, None)
        if answer.status != 200:
            raise answer.nonsense("only 200, 404 and 503 are answers to it")
        found = answer.content()
        if "value" not in found:
            raise answer.nonsense("value is missing")
        if found.get("key") != key:
            raise answer.nonsense(f"key is not {key!r}")
        version = answer.integer("version")
        if not version:
            raise answer.nonsense("version is 0; a missing key is a 404")
        return Value(answer.position(), version, answer.text(found["value"]))

    def close(self) -> None:
        self._connection.close()

    def _get(self, path: str) -> "_Answer":
        try:
            answer = self._ask(path)
        except TimeoutError:
            self.close()
            raise NoAnswer(f"no answer within {self._seconds:g} s") from None
        except OSError as error:
            self.close()
            raise NoAnswer((error.strerror or "the connection was closed").lower()) from None
        except HTTPException as error:
            self.close()
            raise _of_http(path, error) from None
        if len(answer.body) > _BYTES_MAX:
            self.close()
            raise answer.nonsense(f"the answer has more than {_BYTES_MAX:,} bytes")
        if answer.status >= 500:
            said = f"GET {plain(path)} was answered with {answer.status}: {_shown(answer.body)}".rstrip(": ")
            raise NoAnswer(said, refused=answer.status == _REFUSED)
        return answer

    def _ask(self, path: str) -> "_Answer":
        """Ask once more if the program had closed the kept connection."""
        is_kept = self._connection.sock is not None
        try:
            self._connection.request("GET", path, headers={"Accept": "application/json"})
            response = self._connection.answer_within(self._seconds)
        except ConnectionError:
            self.close()
            if not is_kept:
                raise
            return self._ask(path)
        return _Answer(path, response.status, *self._body(response))

    def _body(self, response: HTTPResponse) -> tuple[bytes, bool]:
        """Return the body, and whether it is known to be all of it. Raises ``NoAnswer`` if it is known not to be."""
        has_length = response.length is not None or response.chunked
        body = response.read(_BYTES_MAX + 1)
        if response.length and len(body) <= _BYTES_MAX:
            self.close()
            raise NoAnswer("the connection was closed within an answer")
        return body, has_length


class _Answer(NamedTuple):
    """``whole``: the end of the connection did not cut it short, as a kill does."""

    path: str
    status: int
    body: bytes
    whole: bool

    def nonsense(self, why: str) -> Nonsense:
        return Nonsense(
            f"GET {plain(self.path)} was answered with {self.status}, but {plain(why)}: {_shown(self.body)}"
        )

    def content(self) -> dict[str, Any]:
        try:
            found = strict_json.loads(self.body)
        except ValueError as error:
            if not self.whole:
                why = "the connection was closed, perhaps within an answer; it had no Content-Length"
                raise NoAnswer(f"{why}: {_shown(self.body)}") from None
            raise self.nonsense(f"the body is not JSON ({error})") from None
        if not isinstance(found, dict):
            raise self.nonsense("the body is not a JSON object")
        return found

    def position(self) -> Position:
        found = self.content().get("position")
        if not isinstance(found, str):
            raise self.nonsense("position is not a text")
        try:
            return Position.parse(found)
        except ValueError as error:
            raise self.nonsense(str(error)) from None

    def integer(self, name: str) -> int:
        found = self.content().get(name)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < _VERSION_MAX:
            raise self.nonsense(f"{name} is not a whole number below 10^15")
        return found

    def text(self, value: Any) -> str:
        try:
            strict_json.dumps(value)
            return words.text(value)
        except ValueError as error:
            raise self.nonsense(str(error)) from None


def _of_http(path: str, error: HTTPException) -> Exception:
    """A kill cuts an answer short, even within a line, and then nothing is wrong."""
    if isinstance(error, IncompleteRead) or (isinstance(error, BadStatusLine) and str(error)[-1:] != "\n"):
        return NoAnswer("the connection was closed within an answer")
    return Nonsense(f"GET {plain(path)} was not answered in HTTP: {_shown(str(error).encode())}")


def _shown(body: bytes) -> str:
    return plain(body[: _SHOWN_MAX * 4].decode(errors="replace"), keep="")[:_SHOWN_MAX]
