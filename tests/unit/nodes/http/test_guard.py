"""Which endpoints need the token: each says so where it is declared, on every node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from nodes.client import app as client
from nodes.client.experiments import ExperimentStore
from nodes.http import guard, problem
from nodes.primary import app as primary
from nodes.replica import app as replica
from nodes.replica.store import ReplicaStore
from nodes.runtime.config import Role, load
from nodes.worker import app as worker

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
        for module, kind in ((replica, ReplicaStore), (client, ExperimentStore)):
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


def test_every_endpoint_says_whether_it_needs_the_token(app: Flask) -> None:
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


def test_what_needs_the_token_is_refused_without_it(app: Flask) -> None:
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
def test_the_scheme_is_written_in_any_case(given: str) -> None:
    app = Flask("x")
    guard.install(app, load("primary", {"LAB_ADMIN_TOKEN": TOKEN}))
    app.add_url_rule("/admin/thing", "thing", lambda: "done")
    assert app.test_client().get("/admin/thing", headers={"Authorization": given}).status_code == 200


def test_an_endpoint_without_a_decision_needs_the_token() -> None:
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
def test_where_no_token_is_set_the_description_does_not_require_one(values: dict[str, str], wanted: Any) -> None:
    config = load("primary", values)
    found = Flask("node")
    guard.install(found, config)
    assert guard.security(found) == wanted
