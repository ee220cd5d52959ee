"""The request guard: foreign pages are refused, and endpoints declare whether they require the token."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from nodes.client import app as client
from nodes.client.experiments import ExperimentStore
from nodes.http import guard, problem
from nodes.primary import app as primary
from nodes.replica import app as replica
from nodes.replica import parts as replica_parts
from nodes.replica.store import ReplicaStore
from nodes.runtime.config import Role, load
from nodes.worker import app as worker
from tests.support.app import assert_problem, build, post

TOKEN = "s3cret"


APPS: dict[Role, Callable[[Any], Flask]] = {
    "primary": primary.create_app,
    "replica": replica.create_app,
    "client": client.create_app,
    "worker": worker.create_app,
}


WRITING_OPENLY = {
    "POST /data", "POST /data/batch", "DELETE /data/<key:key>", "POST /write", "POST /write-and-read",
    "POST /write-and-wait",
}  # fmt: skip


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    with ExitStack() as opened:  # a node keeps its files open until the process ends
        for module, kind in ((replica_parts, ReplicaStore), (client, ExperimentStore)):
            monkeypatch.setattr(module, kind.__name__, partial(_made, kind, opened))
        environment = {
            "LAB_ADMIN_TOKEN": TOKEN,
            "LAB_DATA_DIR": str(tmp_path),
            "LAB_REDIS_URL": "redis://127.0.0.1:9/0",
        }
        yield APPS[request.param](load(request.param, environment))


def _made(kind: Callable[[Path], Any], opened: ExitStack, directory: Path) -> Any:
    return opened.enter_context(closing(kind(directory)))


def routes(app: Flask) -> list[tuple[str, str, str]]:
    """Each endpoint with its method and path."""
    return [
        (str(rule.endpoint), method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]


def test_every_endpoint_declares_whether_it_requires_the_token(app: Flask) -> None:
    decided = guard.decisions(app)
    assert {endpoint for endpoint, _, _ in routes(app)} == set(decided)
    changing = {f"{method} {path}": decided[endpoint] for endpoint, method, path in routes(app) if method != "GET"}
    assert {name for name, admin in changing.items() if not admin} <= WRITING_OPENLY
    assert all(decided[endpoint] for endpoint, _, path in routes(app) if path.startswith("/admin"))


def test_the_description_states_which_endpoints_need_the_token(app: Flask) -> None:
    described = app.test_client().get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json
    assert described is not None
    needing = {op["operationId"] for path in described["paths"].values() for op in path.values() if "security" in op}
    assert len(needing) == sum(guard.decisions(app).values())


def test_endpoints_that_require_the_token_are_refused_without_it(app: Flask) -> None:
    http = app.test_client()
    for endpoint, method, path in routes(app):
        if not guard.decisions(app)[endpoint]:
            continue
        filled = path.replace("<key:", "<").replace("<", "").replace(">", "")
        for given in (None, "", TOKEN, "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer ü"):
            headers = {} if given is None else {"Authorization": given}
            answer = http.open(filled, method=method, headers=headers)
            assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == (401, "Bearer"), (path, given)


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_the_authorization_scheme_is_case_insensitive(given: str) -> None:
    app = Flask("x")
    guard.install(app, load("primary", {"LAB_ADMIN_TOKEN": TOKEN}))
    app.add_url_rule("/admin/thing", "thing", lambda: "done")
    assert app.test_client().get("/admin/thing", headers={"Authorization": given}).status_code == 200


def test_an_undeclared_endpoint_requires_the_token() -> None:
    app = Flask("x")
    guard.install(app, load("primary", {"LAB_ADMIN_TOKEN": TOKEN}))
    app.add_url_rule("/new", "new", lambda: "done")
    problem.install(app)
    assert app.test_client().get("/new").status_code == 401
    guard.declare(app, "new", admin=False)
    assert app.test_client().get("/new").text == "done"


def test_without_a_token_everything_is_open() -> None:
    app = Flask("x")
    guard.install(app, load("primary", {}))
    app.add_url_rule("/new", "new", lambda: "done")
    assert app.test_client().get("/new").text == "done"


@pytest.mark.parametrize(
    ("values", "wanted"), [({}, [{}, {"admin": []}]), ({"LAB_ADMIN_TOKEN": TOKEN}, [{"admin": []}])]
)
def test_without_a_token_the_description_does_not_require_one(values: dict[str, str], wanted: Any) -> None:
    config = load("primary", values)
    found = Flask("node")
    guard.install(found, config)
    assert guard.security(found) == wanted


@pytest.fixture
def http() -> FlaskClient:
    return build()[0].test_client()


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
