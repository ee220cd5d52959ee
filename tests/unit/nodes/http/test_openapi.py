"""The description of the endpoints."""

import pytest
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from tests.support.app import build


@pytest.fixture
def http() -> FlaskClient:
    return build()[0].test_client()


def test_the_description_is_valid_openapi(http: FlaskClient) -> None:
    found = http.get("/openapi.json").json
    assert found is not None
    validate(found)
    assert set(found["paths"]) == {"/data", "/openapi.json"}
