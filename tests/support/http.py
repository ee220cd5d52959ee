"""Requests to real nodes."""

from __future__ import annotations

import json
from typing import Any

import urllib3

POOL = urllib3.PoolManager(retries=False, maxsize=64, timeout=urllib3.Timeout(connect=2, read=70))


def ask(method: str, url: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Return status and JSON body. Raises ``urllib3.exceptions.HTTPError``."""
    raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    answer = POOL.request(method, url, body=raw, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return answer.status, answer.json()


def get(url: str) -> dict[str, Any]:
    """Return the body of an answer, which must be a 200."""
    return _ok(*ask("GET", url))


def post(url: str, body: Any = None) -> dict[str, Any]:
    """Return the body of an answer, which must be a 200."""
    return _ok(*ask("POST", url, body))


def _ok(status: int, body: dict[str, Any]) -> dict[str, Any]:
    assert status == 200, body
    return body
