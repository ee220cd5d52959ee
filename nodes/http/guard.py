"""Request guard: rejects cross-origin browser requests; changes require the admin token."""

import hmac
import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

from flask import Flask, request

from nodes.http.problem import Problem
from nodes.runtime.config import NodeConfig

_GUARDED = "whether a token is set"


def install(app: Flask, config: NodeConfig) -> None:
    app.extensions[_GUARDED] = config.admin_token is not None
    own_names = re.compile(rf"{re.escape(config.namespace.strip('{}'))}-[a-z0-9-]+")
    known = {"localhost", config.node_id, *config.allowed_hosts}

    @lru_cache(maxsize=256)
    def is_own(host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in known or bool(own_names.fullmatch(name) or ipaddress.ip_address(name))
        except ValueError:  # neither a host nor an address
            return False

    @app.before_request
    def let_in() -> None:
        host = request.environ.get("HTTP_HOST", "")
        if not is_own(host):
            detail = f"The host name {host[:100]!r} does not belong to this lab; LAB_ALLOWED_HOSTS adds names."
            raise Problem(403, "foreign-host", "Foreign host", detail)
        if _is_foreign(host, config.allowed_origins):
            detail = "A web page of another origin sent this request; LAB_ALLOWED_ORIGINS adds origins."
            raise Problem(403, "foreign-origin", "Foreign origin", detail)
        if config.admin_token is not None and request.endpoint and decisions(app).get(request.endpoint, True):
            _require(config.admin_token)


def declare(app: Flask, endpoint: str, *, admin: bool) -> None:
    """Declare whether an endpoint requires the token, if one is set; undeclared endpoints do."""
    decisions(app)[endpoint] = admin


def decisions(app: Flask) -> dict[str, bool]:
    found: dict[str, bool] = app.extensions.setdefault("endpoints that require the token", {})
    return found


def security(app: Flask) -> list[dict[str, list[str]]]:
    """OpenAPI security of an endpoint that requires the token: optional if no token is set."""
    return [{"admin": []}] if app.extensions[_GUARDED] else [{}, {"admin": []}]


def proof(token: str, node_id: str, url: str) -> str:
    """Return the proof that a node registers with its URL to show that it has the token; valid for that URL only."""
    return hmac.digest(token.encode(), f"{node_id}\n{url}".encode(), "sha256").hex()


def is_proven(token: str | None, node_id: str, url: str, given: str) -> bool:
    """Whether a registered URL belongs to a node with the token; always false without a token."""
    return token is not None and hmac.compare_digest(proof(token, node_id, url).encode(), given.encode())


def _require(token: str) -> None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        detail = "LAB_ADMIN_TOKEN is set: send it as Authorization: Bearer TOKEN."
        problem = Problem(401, "admin-token", "Admin token required", detail)
        problem.headers["WWW-Authenticate"] = "Bearer"
        raise problem


def _is_foreign(host: str, allowed_origins: frozenset[str]) -> bool:
    """Whether a page of another origin made the browser send this; following a link does not count."""
    environ = request.environ
    origin = environ.get("HTTP_ORIGIN")  # scheme and host, or null
    if origin in allowed_origins:
        return False
    if origin is not None and origin.partition("://")[2] != host:
        return True
    followed_link = (
        environ["REQUEST_METHOD"] == "GET"
        and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        and environ.get("HTTP_SEC_FETCH_DEST", "document") == "document"  # not a frame of that page
    )
    # Another port of this host is the same site but another origin.
    return environ.get("HTTP_SEC_FETCH_SITE") in {"cross-site", "same-site"} and not followed_link
