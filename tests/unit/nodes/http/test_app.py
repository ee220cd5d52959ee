"""What every node's HTTP has: strict JSON, problem details, guarded origins, a description of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from prometheus_client import CollectorRegistry
from werkzeug.test import TestResponse

from broker.errors import LogRefused, LogUnreachable, OutcomeUnknown, WriteIdReused
from nodes.http import strict_json
from nodes.http.api import Api
from nodes.http.app import add_health, make_app
from nodes.http.writing import WriteBody, write_id_of
from nodes.runtime.config import load
from nodes.runtime.tracing import Tracing


def build(**environment: str) -> tuple[Flask, Api]:
    app, api = make_app(load("primary", environment), Tracing(), CollectorRegistry())

    @api.route("POST", "/data", admin=False, body=WriteBody, answer=dict[str, Any])
    def write(body: WriteBody) -> dict[str, Any]:
        """Write."""
        return {"key": body.key, "value": body.value, "position": "1-1"}

    return app, api


@pytest.fixture
def http() -> FlaskClient:
    return build()[0].test_client()


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


def test_a_body_is_json_regardless_of_its_content_type(http: FlaskClient) -> None:
    raw = '{"key":"k","value":{"a":[1,null,"ü"]}}'
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain", ""):
        answer = post(http, raw, Content_Type=kind)
        assert (answer.status_code, answer.json) == (200, {**json.loads(raw), "position": "1-1"})


def test_an_answer_with_a_position_has_it_and_its_source_as_headers(http: FlaskClient) -> None:
    headers = post(http, '{"key":"k","value":1}').headers
    assert (headers["Lab-Position"], headers["Lab-Source"]) == ("1-1", "lab14-primary")


NOT_JSON = [
    "",
    "{",
    "nothing",
    "{'key':1}",
    '{"key":"k","value":NaN}',
    '{"key":"k","value":-Infinity}',
    b"\xff\xfe",
    '{"a":1}{"b":2}',
]


@pytest.mark.parametrize("raw", NOT_JSON)
def test_a_body_that_is_not_json_is_a_400(http: FlaskClient, raw: bytes | str) -> None:
    assert assert_problem(post(http, raw), 400)["outcome"] == "not_applied"


@pytest.mark.parametrize("raw", ["[]", "1", '"x"', "null", "true"])
def test_a_body_that_is_not_an_object_is_a_400(http: FlaskClient, raw: str) -> None:
    assert "not an object" in assert_problem(post(http, raw), 400)["detail"]


FIELDS = [
    ({"value": 1}, "key"),
    ({"key": "k"}, "value"),
    ({"key": 5, "value": 1}, "key"),
    ({"key": None, "value": 1}, "key"),
    ({"key": "", "value": 1}, "key"),
    ({"key": "x" * 513, "value": 1}, "key"),
    ({"key": "ü" * 257, "value": 1}, "key"),
    ({"key": "\ud800", "value": 1}, "key"),
    ({"key": ".", "value": 1}, "key"),
    ({"key": "..", "value": 1}, "key"),
    ({"key": "k", "value": 1, "ttl": 5}, "ttl"),
]


@pytest.mark.parametrize(("body", "field"), FIELDS)
def test_an_invalid_field_is_a_422_with_its_name(http: FlaskClient, body: dict[str, Any], field: str) -> None:
    found = assert_problem(post(http, json.dumps(body)), 422)
    assert [error["field"] for error in found["errors"]] == [field]
    assert found["outcome"] == "not_applied"


def test_the_longest_key_is_accepted(http: FlaskClient) -> None:
    assert post(http, json.dumps({"key": "x" * 512, "value": 1})).status_code == 200


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_nesting_is_bounded(http: FlaskClient) -> None:
    assert post(http, f'{{"key":"k","value":{nested(64)}}}').status_code == 200
    for depth in (65, 5000, 400_000):
        assert "nested deeper" in assert_problem(post(http, f'{{"key":"k","value":{nested(depth)}}}'), 400)["detail"]


def test_a_body_is_bounded(http: FlaskClient) -> None:
    assert_problem(post(http, b" " * (2**20 + 1)), 413)


def test_unknown_paths_and_methods_are_problems(http: FlaskClient) -> None:
    assert_problem(http.get("/nothing"), 404)
    answer = http.put("/data", data="{}")
    assert_problem(answer, 405)
    assert "POST" in answer.headers["Allow"]


def test_an_endpoint_without_parameters_refuses_any(http: FlaskClient) -> None:
    assert_problem(http.get("/openapi.json?x=1"), 400)


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


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example:8000"},
        {"Host": "lab14-evil.example"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_requests_from_pages_of_another_origin_are_refused(http: FlaskClient, headers: dict[str, str]) -> None:
    answer = http.post("/data", data='{"key":"k","value":1}', headers={"Host": "localhost:8000", **headers})
    assert_problem(answer, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:8000", "Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"},
        {"Host": "127.0.0.1:8000"},
        {"Host": "[::1]:8000"},
        {"Host": "192.0.2.7"},
        {"Host": "LAB14-primary:8000"},
        {"Host": "lab14-replica2:8002"},
        {"Host": "lab.example:8000"},
    ],
)
def test_all_other_requests_are_answered(headers: dict[str, str]) -> None:
    http = build(LAB_ALLOWED_HOSTS="lab.example, other.example")[0].test_client()
    assert http.post("/data", data='{"key":"k","value":1}', headers=headers).status_code == 200


FORWARDED = {"Host": "localhost:8003", "Origin": "https://name-8003.app.github.dev", "Sec-Fetch-Site": "same-origin"}


def test_pages_of_a_forwarded_port_are_answered_if_their_origin_is_allowed() -> None:
    def send(origins: str, **headers: str) -> int:
        http = build(LAB_ALLOWED_ORIGINS=origins)[0].test_client()
        return http.post("/data", data='{"key":"k","value":1}', headers={**FORWARDED, **headers}).status_code

    named = "https://other.example:8443, https://name-8003.app.github.dev"
    assert send(named) == 200
    assert send("") == 403
    for origin in ("http://name-8003.app.github.dev", "https://name-8003.app.github.dev.evil.example", "null"):
        assert send(named, Origin=origin) == 403


def test_following_a_link_from_another_site_is_allowed(http: FlaskClient) -> None:
    headers = {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert http.get("/openapi.json", headers=headers).status_code == 200
    assert http.get("/openapi.json", headers={**headers, "Sec-Fetch-Mode": "no-cors"}).status_code == 403


@pytest.mark.parametrize("dest", ["iframe", "frame", "embed", "object", "image", "empty"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["navigate", "no-cors"])
def test_a_page_of_another_origin_embeds_nothing(http: FlaskClient, dest: str, site: str, mode: str) -> None:
    headers = {"Host": "localhost", "Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    assert_problem(http.get("/openapi.json", headers=headers), 403)
    headers |= {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert http.get("/openapi.json", headers=headers).status_code == 200


def test_admin_endpoints_require_the_token_if_one_is_set() -> None:
    app, _ = build(LAB_ADMIN_TOKEN="s3cret")

    @app.get("/admin/thing")
    def thing() -> str:
        return "done"

    http = app.test_client()
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer ü"}):
        answer = http.get("/admin/thing", headers=headers)
        assert_problem(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert http.get("/admin/thing", headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert_problem(http.get("/none"), 404)
    assert post(http, '{"key":"k","value":1}').status_code == 200


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


def test_the_description_is_valid_openapi(http: FlaskClient) -> None:
    found = http.get("/openapi.json").json
    assert found is not None
    validate(found)
    assert set(found["paths"]) == {"/data", "/openapi.json"}


@pytest.mark.parametrize(
    ("given", "taken"),
    [("abc", "abc"), ('"abc"', "abc"), ("a" * 128, "a" * 128), ("2026-11/23_x:~!", "2026-11/23_x:~!")],
)
def test_an_idempotency_key_becomes_the_write_id(given: str, taken: str) -> None:
    assert write_id_of(given) == taken


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", 'a"b', "a\\b", "ü", "a\n"[:2] + "b"])
def test_an_unusable_idempotency_key_is_refused(given: str) -> None:
    from nodes.http.problem import Problem

    with pytest.raises(Problem):
        write_id_of(given)


def test_new_write_ids_differ() -> None:
    assert len({write_id_of(None) for _ in range(100)}) == 100


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\ud800": 1}])
def test_values_that_json_cannot_carry_are_not_written(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the sentence depends on what is wrong
        strict_json.dumps(value)


def test_an_overflowing_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"[Oo]ut of range|not JSON|large"):
        strict_json.dumps(strict_json.loads(b"1e999"))
