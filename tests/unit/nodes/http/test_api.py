"""Endpoints: strict bodies and parameters, and their answers."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.app import assert_problem, build, post


@pytest.fixture
def http() -> FlaskClient:
    return build()[0].test_client()


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
