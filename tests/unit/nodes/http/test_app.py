"""Features of every node's app: health and metrics."""

import pytest
from flask.testing import FlaskClient

from nodes.http.app import add_health
from nodes.runtime.config import load
from tests.support.app import build, post


@pytest.fixture
def http() -> FlaskClient:
    return build()[0].test_client()


def test_health_is_503_while_anything_is_wrong() -> None:
    app, api = build()
    checks = {"log": "ok"}
    add_health(api, load("primary", {}), lambda: checks)
    http = app.test_client()
    assert http.get("/health").json == {
        "status": "ok",
        "service": "lab14-primary",
        "role": "primary",
        "checks": {"log": "ok"},
    }
    checks["log"] = "gone"
    answer = http.get("/health")
    assert (answer.status_code, answer.json and answer.json["status"]) == (503, "degraded")


def test_metrics_are_openmetrics_when_the_scraper_asks(http: FlaskClient) -> None:
    post(http, '{"key":"k","value":1}')
    plain = http.get("/metrics")
    assert 'flask_http_request_total{method="POST",status="200"} 1.0' in plain.text
    openmetrics = http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
