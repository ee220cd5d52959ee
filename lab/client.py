"""The HTTP client of all commands."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3

from lab.errors import LabError
from nodes.http import strict_json

_POOL = urllib3.PoolManager(retries=False, maxsize=256)
# The client service's feed sends a heartbeat every 5 s.
_STREAM_TIMEOUT = urllib3.Timeout(connect=2.0, read=20.0)


class NodeUnreachable(LabError):
    advice = "; `lab status` shows a lab, `lab up` starts one"


def request(
    method: str, url: str, body: Any = None, timeout_seconds: float = 10.0, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """The status and the JSON of the response. ``body``: bytes, or a value for JSON. Raises ``NodeUnreachable``."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    token = os.environ.get("LAB_ADMIN_TOKEN")
    admin = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = _POOL.request(method, url, body=raw, headers={**(headers or {}), **admin}, timeout=timeout_seconds)
        return answer.status, strict_json.loads(answer.data)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise NodeUnreachable(f"{url} does not answer: {error}") from error


def call(
    method: str, url: str, body: Any = None, timeout_seconds: float = 10.0, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Like ``request``, for a response that is a JSON object."""
    status, found = request(method, url, body, timeout_seconds, headers)
    if not isinstance(found, dict):
        raise NodeUnreachable(f"{url} does not answer with a JSON object")
    return status, found


def ask(method: str, url: str, body: Any = None, timeout_seconds: float = 10.0) -> dict[str, Any]:
    """Return the JSON object of a successful response. Raises ``LabError`` with the detail of an error."""
    status, found = call(method, url, body, timeout_seconds)
    if status >= 400:
        raise LabError(str(found.get("detail") or f"{url} answered {status}"))
    return found


def get(url: str, timeout_seconds: float = 10.0) -> dict[str, Any]:
    return ask("GET", url, None, timeout_seconds)


def post(url: str, body: Any, timeout_seconds: float = 10.0) -> dict[str, Any]:
    return ask("POST", url, body, timeout_seconds)


def messages(url: str) -> Iterator[dict[str, Any]]:
    """Yield the messages of a stream of server-sent events. Raises ``NodeUnreachable``, also when the stream ends."""
    try:
        answer = _POOL.request("GET", url, preload_content=False, timeout=_STREAM_TIMEOUT)
        try:
            for line in map(bytes.rstrip, answer):
                if line.startswith(b"data: {") and line != b"data: {}":
                    yield json.loads(line.removeprefix(b"data: "))
        finally:
            answer.close()
        raise NodeUnreachable(f"{url} does not answer with a stream of events")
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise NodeUnreachable(f"{url} does not answer: {error}") from error
