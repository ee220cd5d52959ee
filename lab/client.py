"""Asking the nodes of a running lab, from the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import urllib3

from nodes.http import strict_json

_POOL = urllib3.PoolManager(retries=False, maxsize=256)


class NodeUnreachable(Exception):
    """Raised when a node does not answer."""


def call(
    method: str,
    url: str,
    body: Any = None,
    timeout_seconds: float = 10.0,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, dict[str, Any]]:
    """One request: status and JSON body. Raises ``NodeUnreachable``."""
    raw = None if body is None else json.dumps(body).encode()
    token = os.environ.get("LAB_ADMIN_TOKEN")
    admin = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = _POOL.request(method, url, body=raw, headers={**headers, **admin}, timeout=timeout_seconds)
        found = strict_json.loads(answer.data)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise NodeUnreachable(f"{url} does not answer: {error}") from error
    if not isinstance(found, dict):
        raise NodeUnreachable(f"{url} does not answer with a JSON object")
    return answer.status, found


def get(url: str, timeout_seconds: float = 10.0) -> dict[str, Any]:
    """What a node answers. Raises ``NodeUnreachable``, also for problem details."""
    return _answered("GET", url, None, timeout_seconds)


def post(url: str, body: Any, timeout_seconds: float = 10.0) -> dict[str, Any]:
    """What a node answers. Raises ``NodeUnreachable``, also for problem details."""
    return _answered("POST", url, body, timeout_seconds)


def _answered(method: str, url: str, body: Any, timeout_seconds: float) -> dict[str, Any]:
    status, found = call(method, url, body, timeout_seconds)
    if status >= 400:
        raise NodeUnreachable(f"{url} answered {status}: {found.get('detail')}")
    return found
