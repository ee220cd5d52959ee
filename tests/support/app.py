"""An app with one writing endpoint, for tests of the HTTP features of all nodes."""

import json
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry
from werkzeug.test import TestResponse

from nodes.http.api import Api
from nodes.http.app import make_app
from nodes.http.writing import WriteBody
from nodes.runtime.config import load
from nodes.runtime.tracing import Tracing


def build(**environment: str) -> tuple[Flask, Api]:
    app, api = make_app(load("primary", environment), Tracing(), CollectorRegistry())

    @api.route("POST", "/data", admin=False, body=WriteBody, answer=dict[str, Any])
    def write(body: WriteBody) -> dict[str, Any]:
        """Write."""
        return {"key": body.key, "value": body.value, "position": "1-1"}

    return app, api


def post(http: FlaskClient, raw: bytes | str, **headers: str) -> TestResponse:
    return http.post("/data", data=raw, headers={name.replace("_", "-"): value for name, value in headers.items()})


def assert_problem(answer: TestResponse, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    found: dict[str, Any] = json.loads(answer.data)
    assert {"type", "title", "status", "detail"} <= set(found)
    assert found["status"] == status
    assert "Traceback" not in answer.text
    return found
