"""Exceptions of the logic become problem details in one place."""

from typing import Any

import pytest
from flask import Flask

from broker.errors import LogBehind, LogError, LogRefused, LogUnreachable, OutcomeUnknown, WriteIdReused
from nodes.http import problem
from nodes.http.peers import PeerError, PeerRefused, PeersBusy
from nodes.http.problem import maps
from nodes.runtime.gate import Places
from nodes.runtime.store import StoreError
from tests.support.app import assert_problem, build


class Full(Exception):
    """A role-specific exception."""

    headers = {"Retry-After": "10"}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        super().__init__("there is no room")
        self.extra = {"room": 0}


def answered(error: Exception, method: str = "POST") -> Any:
    app = Flask("x")
    problem.install(app)

    @app.route("/", methods=["GET", "POST"])
    def fail() -> Any:
        raise error

    return app.test_client().open("/", method=method)


@pytest.mark.parametrize(
    ("error", "status", "slug", "outcome"),
    [
        (LogUnreachable("gone"), 503, "log-unavailable", "not_applied"),
        (OutcomeUnknown("no answer"), 503, "log-unavailable", "unknown"),
        (LogBehind("behind"), 503, "log-unavailable", "unknown"),
        (WriteIdReused("w is taken"), 422, "idempotency-key-reused", "not_applied"),
        (PeersBusy("busy"), 503, "peers-busy", "not_applied"),
        (PeerError("gone", sent=False, role="primary"), 503, "primary-unavailable", "not_applied"),
        (PeerError("no answer", sent=True), 503, "node-unavailable", "unknown"),
        (StoreError("full"), 503, "store-unavailable", None),
        (ZeroDivisionError(), 500, "internal-error", "unknown"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_exception_has_one_answer(error: Exception, status: int, slug: str, outcome: str | None) -> None:
    answer = answered(error)
    body = answer.get_json(force=True)
    assert answer.content_type == "application/problem+json"
    assert (answer.status_code, body["type"]) == (status, f"urn:eventual-consistency-lab:{slug}")
    assert body.get("outcome") == outcome
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)


def test_a_read_that_failed_has_no_outcome() -> None:
    assert "outcome" not in answered(LogError("gone"), "GET").get_json(force=True)


def test_a_role_adds_its_own_exceptions_with_members_and_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem, "PROBLEMS", dict(problem.PROBLEMS))
    maps(Full, 429, "full", "Full")
    answer = answered(Full())
    body = answer.get_json(force=True)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
    assert (body["title"], body["detail"]) == ("Full", "there is no room.")
    assert (body["room"], body["outcome"]) == (0, "not_applied")


def test_another_nodes_problem_is_passed_on_unchanged() -> None:
    body = {"type": "urn:x", "title": "X", "status": 409, "detail": "No."}
    answer = answered(PeerRefused(409, body))
    assert (answer.status_code, answer.get_json(force=True)) == (409, body)


def test_a_request_without_a_place_is_refused_and_wrote_nothing() -> None:
    app, places = Flask("x"), Places(1)
    problem.install(app)

    @app.route("/wait", methods=["GET", "POST"])
    def wait() -> dict[str, Any]:
        with places.one():
            return {}

    http = app.test_client()
    with places.one():
        for answer, outcome in ((http.post("/wait"), "not_applied"), (http.get("/wait"), None)):
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert answer.get_json(force=True).get("outcome") == outcome
    assert [http.post("/wait").status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (LogUnreachable("gone"), 503, "not_applied"),
        (LogRefused("full"), 503, "not_applied"),
        (OutcomeUnknown("silence"), 503, "unknown"),
        (WriteIdReused("reused"), 422, "not_applied"),
        (RuntimeError("secret"), 500, "unknown"),
    ],
)
def test_each_error_has_the_outcome_of_the_write(error: Exception, status: int, outcome: str) -> None:
    app, _ = build()

    @app.post("/fail")
    def fail() -> str:
        raise error

    answer = app.test_client().post("/fail")
    found = assert_problem(answer, status)
    assert found["outcome"] == outcome
    assert "secret" not in answer.text
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)
