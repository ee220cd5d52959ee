"""Anything over HTTP, by templates: how to write a key's number to a URL, or how to read it from another one."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import urllib3

from lab.probe.target import PREFIX, Description, NotNow, Settings, Shown, TargetError
from nodes.http import strict_json

_TIMEOUT = urllib3.Timeout(connect=2.0, read=10.0)
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # status codes of an overloaded or restarting server
_BYTES_MAX = 2**20  # of an answer
_SHOWN_MAX = 200  # characters of an answer that an error quotes
_METHODS = {"PUT", "POST", "PATCH", "GET"}
EXAMPLES = "'PUT http://a/kv/{key}' or 'GET http://b/kv/{key}'"


class Template(NamedTuple):
    """``rest``: of a write the body, by default the number; of a read the field, by default the whole answer."""

    method: str
    url: str
    rest: str


class Connection:
    """Requests to a server over one kept connection."""

    def __init__(self, password: str | None) -> None:
        self._pool = urllib3.PoolManager(retries=False, maxsize=1, timeout=_TIMEOUT)
        self._headers = {} if password is None else {"Authorization": f"Bearer {password}"}

    def request(self, method: str, url: str, body: str | None = None) -> tuple[int, bytes]:
        """Return status and body. Raises ``NotNow``; ``TargetError`` for a status that a later request would get."""
        kind = "application/json" if body is not None and body.startswith(("{", "[")) else "text/plain"
        headers = {**self._headers, "Content-Type": kind}
        try:
            answer = self._pool.request(method, url, body=body, headers=headers, redirect=False, preload_content=False)
            said = answer.read(_BYTES_MAX + 1)
            answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise NotNow(f"{_place(url)} does not answer: {error}") from error
        if answer.status in _PASSING:
            raise NotNow(f"{method} {url} answered {answer.status}")
        if answer.status >= 300 and answer.status != 404:
            shown = said[:_SHOWN_MAX].decode(errors="replace")
            raise TargetError(f"{method} {url} answered {answer.status}: {shown}")
        if len(said) > _BYTES_MAX:
            raise TargetError(f"{method} {url} answered with more than {_BYTES_MAX:,} bytes")
        return answer.status, said

    def close(self) -> None:
        self._pool.clear()


def node(address: str, password: str | None) -> "Http":
    """``address``: method and URL with {key}, and a body with {number}, or the field of the answer with the number.

    The URL needs the key also for a write, because DELETE removes it. For example
    ``POST http://a/kv/{key} {"value": {number}}``, and ``GET http://b/kv/{key} data.value``.
    """
    method, _, rest = address.strip().partition(" ")
    url, _, last = rest.strip().partition(" ")
    if method not in _METHODS or not re.match(r"https?://[^/]", url) or "{key}" not in url:
        raise TargetError(f"{address[:_SHOWN_MAX]!r} is not of a form such as {EXAMPLES}")
    return Http(Template(method, url, last.strip()), password)


class Http:
    """A server that is only written to, or only read from. Its role cannot be known."""

    def __init__(self, template: Template, password: str | None) -> None:
        self.name = f"{template.method} {template.url}"
        self._template = template
        self._connection = Connection(password)
        self._written: set[str] = set()

    @property
    def _reads(self) -> bool:
        return self._template.method == "GET"

    def describe(self) -> Description:
        if self._reads:
            return Description([self.name])
        return Description([self.name, f"DELETE {self._template.url}"])

    def settings(self) -> Settings:
        return Settings()

    def prepare(self) -> None:
        """Do nothing: a key is created when it is written."""

    def write(self, key: str, number: int) -> None:
        self._written.add(key)
        body = (self._template.rest or "{number}").replace("{key}", _name(key)).replace("{number}", str(number))
        status, _ = self._connection.request(self._template.method, self._url(key), body)
        if status == 404:
            raise TargetError(f"{self._template.method} {self._url(key)} answered 404")

    def read(self, keys: Sequence[str]) -> Shown:
        """Read the keys one after another: HTTP has no read of several keys."""
        found = {key: number for key in keys if (number := self._number(key)) is not None}
        return Shown(found, is_replica=self._reads, requests=len(keys))

    def remove(self) -> None:
        """Delete the keys that this object wrote; without any, those that an earlier run can have written."""
        keys = sorted(self._written) or (f"k{index:04}" for index in range(1, 10_000))
        for key in keys:
            status, _ = self._connection.request("DELETE", self._url(key))
            if status == 404 and not self._written:
                break
        self._written.clear()

    def close(self) -> None:
        self._connection.close()

    def _url(self, key: str) -> str:
        return self._template.url.replace("{key}", quote(_name(key), safe=""))

    def _number(self, key: str) -> int | None:
        if not self._reads:
            raise TargetError(f"{self.name} cannot be read; give a --read")
        status, raw = self._connection.request("GET", self._url(key))
        return None if status == 404 else number_in(raw, self._template.rest, self._url(key))


def number_in(raw: bytes, field: str, url: str) -> int | None:
    """The number in an answer: the whole of it, or the field of this path. Raises ``TargetError``."""
    try:
        found: Any = strict_json.loads(raw)
        for name in filter(None, field.split(".")):
            found = found[int(name)] if isinstance(found, list) else found[name]
        return None if found is None else int(found)
    except (ValueError, TypeError, LookupError):
        where = f"in its field {field}" if field else "and nothing else; name its field after the URL"
        said = raw[:_SHOWN_MAX].decode(errors="replace")
        raise TargetError(f"GET {url} must answer with the number {where}, not with {said!r}") from None


def _name(key: str) -> str:
    return f"{PREFIX}_{key}"


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
