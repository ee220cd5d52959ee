"""Errors as ``application/problem+json`` (RFC 9457), and the table that maps exceptions to problems."""

import json
import logging
from collections.abc import Callable
from typing import Any, Literal

from flask import Flask, Response, has_request_context, request
from werkzeug.exceptions import HTTPException

from broker.errors import LogError, NotApplied, WriteIdReused
from nodes.http.peers import PeerError, PeerRefused, PeersBusy
from nodes.runtime.caller import CallerLeft, RequestTimeout
from nodes.runtime.connections import PROBLEM_TYPE
from nodes.runtime.gate import TooManyWaiters
from nodes.runtime.store import StoreError

Outcome = Literal["not_applied", "unknown"]
_WRITING = frozenset({"POST", "DELETE"})
_logger = logging.getLogger(__name__)


class Problem(Exception):
    """Raised by endpoints to answer with problem details.

    ``slug`` names the kind of problem and becomes ``type``; ``extra`` are further members of the response. ``outcome``:
    the outcome of a requested change, if any; below 500 it was not applied. A 503 has ``Retry-After``.
    """

    def __init__(self, status: int, slug: str, title: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.slug, self.title, self.detail, self.extra = status, slug, title, detail, extra
        self.outcome: Outcome | None = "not_applied" if status < 500 else None
        self.headers = {"Retry-After": "1"} if status == 503 else {}

    def body(self) -> dict[str, Any]:
        kind = {"type": PROBLEM_TYPE + self.slug, "title": self.title, "status": self.status}
        body: dict[str, Any] = {**kind, "detail": self.detail, **self.extra}
        if self.outcome is not None and has_request_context() and request.method in _WRITING:
            body.setdefault("outcome", self.outcome)
        return body

    def response(self) -> Response:
        text = json.dumps(self.body(), ensure_ascii=False, separators=(",", ":")) + "\n"
        return Response(text, self.status, self.headers, mimetype="application/problem+json")


class _PassedOn(Problem):
    def body(self) -> dict[str, Any]:
        return self.extra


PROBLEMS: dict[type[Exception], Callable[[Any], Problem]] = {}


def maps(kind: type[Exception], status: int, slug: str, title: str, outcome: Outcome | None = None) -> None:
    """Answer exceptions of this kind, and of subclasses without a separate entry, with this problem.

    The exception's text, without a final period, becomes ``detail``; the attributes ``extra`` and ``headers`` are
    optional. If an exception needs more, add a function to ``PROBLEMS``.
    """

    def problem(error: Any) -> Problem:
        found = Problem(status, slug, title, f"{error}.", **getattr(error, "extra", {}))
        found.headers |= getattr(error, "headers", {})
        found.outcome = outcome or found.outcome
        return found

    PROBLEMS[kind] = problem


def problem_of(error: Exception) -> Problem | None:
    """The problem for an exception; ``None`` for an unexpected exception."""
    if isinstance(error, Problem):
        return error
    return next((PROBLEMS[kind](error) for kind in type(error).__mro__ if kind in PROBLEMS), None)


def install(app: Flask) -> None:
    @app.errorhandler(Exception)
    def answer(error: Exception) -> Response:
        found = problem_of(error)
        if found is None:
            _logger.error("unexpected error on %s %s", request.method, request.path, exc_info=error)
            detail = "Unexpected error; see the node's log."
            found = Problem(500, "internal-error", "Internal error", detail, outcome="unknown")
        return found.response()


def _reused(error: WriteIdReused) -> Problem:
    detail = f"{error}: use a new Idempotency-Key for a new write."
    return Problem(422, "idempotency-key-reused", "Idempotency-Key reused", detail)


def _unavailable(error: PeerError) -> Problem:
    found = Problem(503, f"{error.role}-unavailable", f"The {error.role} is unavailable", f"{error}.", **error.extra)
    found.outcome = "unknown" if error.sent else "not_applied"
    return found


def _passed_on(error: PeerRefused) -> Problem:
    found = _PassedOn(error.status, "", "", str(error))
    found.extra = error.body
    return found


def _http(error: HTTPException) -> Problem:
    status = error.code or 500
    found = Problem(status, f"http-{status}", error.name, error.description or error.name)
    found.headers |= {name: value for name, value in error.get_headers() if name in {"Allow", "Retry-After"}}
    return found


maps(LogError, 503, "log-unavailable", "The log is unavailable", "unknown")
maps(NotApplied, 503, "log-unavailable", "The log is unavailable", "not_applied")
maps(StoreError, 503, "store-unavailable", "The store is unavailable")
maps(TooManyWaiters, 503, "too-many-waiters", "Too many waiters", "not_applied")
maps(PeersBusy, 503, "peers-busy", "Too many requests to other nodes", "not_applied")
maps(CallerLeft, 400, "http-400", "Bad Request")
maps(RequestTimeout, 408, "request-timeout", "Request timeout")
PROBLEMS[WriteIdReused] = _reused
PROBLEMS[PeerError] = _unavailable
PROBLEMS[PeerRefused] = _passed_on
PROBLEMS[HTTPException] = _http
