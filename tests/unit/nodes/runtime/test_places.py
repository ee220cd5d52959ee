"""Places for requests that may wait."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from nodes.http import problem
from nodes.runtime.places import Places


def test_who_finds_no_place_is_told_to_come_again_and_that_nothing_was_written() -> None:
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


def test_a_place_is_given_back_whatever_happens() -> None:
    places = Places(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), places.one():
            raise ZeroDivisionError
