"""Who may ask: not a foreign web page through somebody's browser, and to change the lab only who has the token."""

from __future__ import annotations

import ipaddress
import re
from hmac import compare_digest
from urllib.parse import urlsplit

from flask import Flask, request

from nodes.config import NodeConfig
from nodes.problem import Problem

_CHANGING = ("/delays", "/experiments", "/faults", "/reset", "/resync")


def install(app: Flask, config: NodeConfig) -> None:
    """Check every request before it reaches a view."""
    own_names = re.compile(rf"{re.escape(config.namespace.strip('{}'))}-[a-z0-9-]+")

    @app.before_request
    def refuse_foreign_pages() -> None:
        host = request.headers.get("Host", "")
        name = _hostname(host)
        known = name in {"localhost", config.node_id} or name in config.allowed_hosts
        if name is None or not (known or own_names.fullmatch(name) or _is_address(name)):
            detail = f"The host name {host[:100]!r} is not one of this lab; LAB_ALLOWED_HOSTS adds names."
            raise Problem(403, "foreign-host", "Foreign host", detail)
        if _is_foreign(host):
            detail = "This request was made by a web page of another origin; the lab answers only its own."
            raise Problem(403, "foreign-origin", "Foreign origin", detail)

    @app.before_request
    def require_admin_token() -> None:
        if config.admin_token is None or not _changes_the_lab():
            return
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not compare_digest(given.encode(), config.admin_token.encode()):
            detail = "LAB_ADMIN_TOKEN is set: send it as Authorization: Bearer TOKEN."
            problem = Problem(401, "admin-token", "Admin token required", detail)
            problem.headers["WWW-Authenticate"] = "Bearer"
            raise problem


def _changes_the_lab() -> bool:
    """Whether this request is of those that need the token: ``/admin``, and what comes to the same at the client."""
    if request.path.startswith("/admin"):
        return True
    return request.method not in {"GET", "HEAD"} and request.path.startswith(_CHANGING)


def _is_foreign(host: str) -> bool:
    """Whether a page of another origin made the browser send this; a link that somebody followed is not that."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return True
    followed_link = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
    return request.headers.get("Sec-Fetch-Site") == "cross-site" and not followed_link


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
