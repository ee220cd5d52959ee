"""The admin token on a real lab: requests that need it, its spelling, and the nodes that the client sends it to."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from broker.connection import connect
from broker.delay.models import Fixed
from broker.position import Position
from broker.registry import Member, Registry, Settings
from lab.local.supervisor import Lab
from tests.integration.conftest import running_lab
from tests.support.http import ask
from tests.support.until import until

pytestmark = pytest.mark.xdist_group("token")
TOKEN = "s3cret"
REPLICA = "lab14-replica1"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with an admin token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ADMIN_TOKEN", TOKEN)
        with running_lab(tmp_path_factory.mktemp("guarded"), replicas=1) as running:
            yield running


@pytest.fixture
def stranger(guarded: Lab) -> Iterator[list[str | None]]:
    """A server that is registered as a replica without proof; yields the Authorization of each request to it."""
    heard: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            heard.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - as the library names them

        def log_message(self, *_: Any) -> None: ...

    registered = Registry(connect(guarded.redis_url))
    proof = next(member for member in registered.members() if member.replica == REPLICA).proof
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        now_us = int(time.time() * 1e6)  # a member that is silent for an hour is removed
        member = Member("stranger", "http://stranger:1", url, Position(1, 0), now_us, now_us, proof=proof)
        registered.heartbeat(member, Settings(Fixed(0), Fixed(0)))
        try:
            yield heard
        finally:
            registered.forget("stranger")
            server.shutdown()
            thread.join()


def with_token(method: str, url: str, body: Any = None, scheme: str = "Bearer") -> tuple[int, Any]:
    return ask(method, url, body, Authorization=f"{scheme} {TOKEN}")


def test_a_scene_requires_the_token_and_is_restored_without_one(guarded: Lab) -> None:
    url = guarded.client_url
    for method, path in (("POST", "/scenes"), ("PUT", "/scenes/x"), ("DELETE", "/scenes/x")):
        assert ask(method, f"{url}{path}", {"name": "x"} if method == "POST" else None)[0] == 401
    before = with_token("GET", f"{url}/delays")
    status, scene = with_token("POST", f"{url}/scenes", {"name": "guarded"})
    assert (status, ask("GET", f"{url}/scenes")[1]) == (201, {"scene": scene})
    change = {"replica": REPLICA, "delay_ms": 123, "order": "arrival"}
    assert with_token("POST", f"{url}/delays", change)[0] == 200
    assert with_token("POST", f"{url}/faults", {"replica": REPLICA, "fault": "pause"})[0] == 200
    assert with_token("PUT", f"{url}/scenes/{scene['id']}?lease_ms=0")[0] == 200  # the client service ends it
    until(lambda: ask("GET", f"{url}/scenes")[1] == {"scene": None})
    assert with_token("GET", f"{url}/delays") == before
    assert with_token("GET", f"{url}/faults")[1]["replicas"][REPLICA]["faults"] == []


def test_a_registered_impostor_never_receives_the_token(guarded: Lab, stranger: list[str | None]) -> None:
    url = guarded.client_url
    for method, path in (("GET", "/faults"), ("POST", "/faults/reset")):
        status, found = with_token(method, f"{url}{path}")
        assert status == 200
        assert "error" not in found["replicas"][REPLICA]
        assert "has not proved" in found["replicas"]["stranger"]["error"]
    orders: list[tuple[str, str, Any]] = [
        ("POST", "/faults", {"replica": "stranger", "fault": "pause"}),
        ("DELETE", "/faults/stranger", None),
        ("DELETE", "/faults/stranger/pause", None),
        ("POST", "/resync", {"replica": "stranger"}),
    ]
    for method, path, body in orders:
        status, found = with_token(method, f"{url}{path}", body)
        assert (status, found["type"].rsplit(":")[-1]) == (503, "unproven-replica")
    assert [given for given in stranger if given is not None] == []


@pytest.mark.parametrize("name", ["..", ".", "%3Fx%3D1", "%23", "pause%3Fx", "%25"])
def test_special_characters_in_a_fault_name_do_not_change_the_path(guarded: Lab, name: str) -> None:
    path = f"{guarded.client_url}/faults/{REPLICA}/{name.replace('.', '%2E')}"
    status, found = with_token("DELETE", path)
    assert (status, found["title"]) == (404, "No such fault"), found
    assert with_token("DELETE", f"{guarded.client_url}/faults/{REPLICA}")[1]["ended"] == []


def test_the_client_accepts_the_authorization_scheme_in_any_case(guarded: Lab) -> None:
    order = {"replica": REPLICA, "fault": "pause"}
    assert with_token("POST", f"{guarded.client_url}/faults", order, "bearer")[0] == 200
    assert with_token("DELETE", f"{guarded.client_url}/faults/{REPLICA}/pause", scheme="BEARER")[1]["ended"] == [
        "pause"
    ]


def test_without_the_token_the_client_itself_refuses(guarded: Lab) -> None:
    for method, path in (("GET", "/faults"), ("POST", "/faults/reset"), ("GET", "/delays"), ("POST", "/reset")):
        assert ask(method, f"{guarded.client_url}{path}")[0] == 401
