"""Errors as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import json
import logging
from typing import Any, Literal

from flask import Flask, Response, has_request_context, request
from werkzeug.exceptions import HTTPException

from broker.errors import LogError, NotApplied, WriteIdReused
from nodes.http.peers import PeersBusy

WRITING = frozenset({"POST", "DELETE"})
_URN = "urn:eventual-consistency-lab:"
_logger = logging.getLogger(__name__)


class Problem(Exception):
    """Raised to answer with problem details.

    ``slug`` names the kind of problem and becomes ``type``; ``extra`` are further members of the answer.
    """

    def __init__(self, status: int, slug: str, title: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.extra = extra
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        """The members of the answer. A refused write says that it was not applied."""
        body: dict[str, Any] = {
            "type": _URN + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }
        if has_request_context() and request.method in WRITING and self.status < 500:
            body.setdefault("outcome", "not_applied")
        return body

    def response(self) -> Response:
        """The answer itself."""
        text = json.dumps(self.body(), ensure_ascii=False, separators=(",", ":")) + "\n"
        response = Response(text, self.status, mimetype="application/problem+json")
        response.headers.update(self.headers)
        return response


def unavailable(error: LogError, **extra: Any) -> Problem:
    """The log server is gone or did not answer: 503, what that means for a write, and when to come again."""
    if request.method in WRITING:
        extra["outcome"] = outcome_of(error)
    problem = Problem(503, "log-unavailable", "The log is unavailable", f"{error}.", **extra)
    problem.headers["Retry-After"] = "1"
    return problem


def busy(slug: str, title: str, detail: str) -> Problem:
    """A bound is reached, and nothing was done: 503, and when to come again."""
    writes = has_request_context() and request.method in WRITING
    problem = Problem(503, slug, title, detail, **({"outcome": "not_applied"} if writes else {}))
    problem.headers["Retry-After"] = "1"
    return problem


class Passed(Exception):
    """Raised to answer with another node's problem details as they came."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body.get("detail"))
        self.status = status
        self.body = body

    def response(self) -> Response:
        """The answer itself."""
        text = json.dumps(self.body, ensure_ascii=False, separators=(",", ":")) + "\n"
        headers = {"Retry-After": "1"} if self.status == 503 else {}
        return Response(text, self.status, headers, mimetype="application/problem+json")


class RequestTimeout(TimeoutError):
    """Raised when a request's body does not arrive in time."""


def outcome_of(error: LogError) -> Literal["not_applied", "unknown"]:
    """What an error of the log means for a write."""
    return "not_applied" if isinstance(error, NotApplied) else "unknown"


def install(app: Flask) -> None:
    """Answer every error of this app with problem details, and none with a stack trace."""

    @app.errorhandler(Problem)
    def known(problem: Problem) -> Response:
        return problem.response()

    @app.errorhandler(Passed)
    def passed(problem: Passed) -> Response:
        return problem.response()

    @app.errorhandler(LogError)
    def log_error(error: LogError) -> Response:
        if isinstance(error, WriteIdReused):
            detail = f"{error}: use a new Idempotency-Key for a new write."
            return Problem(422, "idempotency-key-reused", "Idempotency-Key reused", detail).response()
        return unavailable(error).response()

    @app.errorhandler(RequestTimeout)
    def too_slow(_: RequestTimeout) -> Response:
        detail = "The body of this request did not arrive in time."
        return Problem(408, "request-timeout", "Request timeout", detail).response()

    @app.errorhandler(PeersBusy)
    def peers_busy(error: PeersBusy) -> Response:
        return busy("peers-busy", "Too many requests to other nodes", f"{error}.").response()

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        problem = Problem(status, f"http-{status}", error.name, error.description or error.name)
        problem.headers = {name: value for name, value in error.get_headers() if name in {"Allow", "Retry-After"}}
        return problem.response()

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        _logger.error("unexpected error on %s %s", request.method, request.path, exc_info=error)
        detail = "The node met an error that it did not expect; its log has the details."
        return Problem(500, "internal-error", "Internal error", detail, outcome="unknown").response()
