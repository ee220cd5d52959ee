"""Requests between simulated nodes, and how they fail."""

from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from urllib3 import exceptions

from lab.simulation.http_connections import Answer, Host, HttpConnections, HttpPool
from lab.simulation.scheduler import Process
from tests.unit.lab.simulation.conftest import Caller

URL, NETLOC = "http://127.0.0.1:8000/data", "127.0.0.1:8000"
ENDS = ("client", "node")


class Node:
    """A node that counts the calls of its app. ``work``: what each call does first."""

    def __init__(self, http: HttpConnections) -> None:
        self._http = http
        self.called: list[dict[str, Any]] = []
        self.done: list[dict[str, Any]] = []
        self.work: Callable[[], object] = lambda: None
        self.start()

    def start(self) -> None:
        self.process = Process("node")
        self._http.hosts[NETLOC] = Host(self.process, self._app)

    def kill(self) -> None:
        self._http.network.scheduler.kill(self.process)
        self._http.end(self.process)

    def _app(self, environ: dict[str, Any], start: Callable[..., object]) -> list[bytes]:
        self.called.append(environ)
        self.work()
        self.done.append(environ)
        start("201 Created", [])
        return [b"the ", environ["wsgi.input"].read()]


@pytest.fixture
def node(http: HttpConnections) -> Node:
    return Node(http)


def post(pool: HttpPool, url: str = URL, **options: Any) -> Answer:
    return pool.request("POST", url, body=b"body", timeout=urllib3.Timeout(connect=1, read=2), **options)


def test_a_request_is_a_call_of_the_other_nodes_app(node: Node, caller: Caller) -> None:
    headers = {"Idempotency-Key": "w1"}
    assert caller.call(lambda: post(HttpPool(), f"{URL}/a%2Fb?acks=1", headers=headers)) == (201, b"the body")
    (environ,) = node.called
    names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_IDEMPOTENCY_KEY", "CONTENT_LENGTH")
    assert [environ[name] for name in names] == ["POST", "/data/a/b", "acks=1", "w1", "4"]
    assert caller.scheduler.now_seconds() < 0.3


def test_a_process_that_has_ended_refuses_connections(node: Node, caller: Caller) -> None:
    node.kill()
    with pytest.raises(exceptions.NewConnectionError):
        caller.call(lambda: post(HttpPool()))


@pytest.mark.parametrize("ends", [ENDS, ENDS[::-1]])
def test_no_connection_is_made_through_a_link_that_is_cut_in_either_direction(
    http: HttpConnections, node: Node, caller: Caller, ends: tuple[str, str]
) -> None:
    http.network.cut(*ends)
    with pytest.raises(exceptions.ConnectTimeoutError):
        caller.call(lambda: post(HttpPool()))
    assert caller.scheduler.now_seconds() == pytest.approx(1, abs=0.1)
    assert not node.called


def test_a_call_goes_on_after_its_caller_has_given_up(node: Node, caller: Caller) -> None:
    node.work = lambda: caller.scheduler.sleep(5)
    with pytest.raises(exceptions.ReadTimeoutError):
        caller.call(lambda: post(HttpPool()))
    assert caller.scheduler.now_seconds() == pytest.approx(2, abs=0.1)
    assert not node.done
    caller.pause(4)
    assert node.done == node.called


def test_a_kept_connection_to_a_process_that_was_restarted_fails_once(node: Node, caller: Caller) -> None:
    pool = HttpPool()
    caller.call(lambda: post(pool))
    node.kill()
    node.start()
    with pytest.raises(exceptions.ProtocolError):
        caller.call(lambda: post(pool))
    assert len(node.called) == 1
    assert caller.call(lambda: post(pool)).status == 201


def test_a_process_that_is_killed_during_a_call_breaks_the_connection(node: Node, caller: Caller) -> None:
    node.work = lambda: caller.scheduler.sleep(1)
    found = caller.begin(lambda: post(HttpPool()))
    caller.pause(0.5)
    node.kill()
    caller.pause(10)
    assert isinstance(found[0], exceptions.ProtocolError)
    assert found[1] == pytest.approx(0.5, abs=0.1)
    assert node.called
    assert not node.done


def test_a_request_that_arrives_late_is_not_for_a_successor_of_the_process_that_it_was_sent_to(
    http: HttpConnections, node: Node, caller: Caller
) -> None:
    arrived = 0
    for restarts in [True] * 20 + [False] * 20:
        pool = HttpPool()
        caller.call(lambda: post(pool))  # noqa: B023
        node.called.clear()
        http.network.cut(*ENDS)
        with pytest.raises(exceptions.ReadTimeoutError):
            caller.call(lambda: post(pool))  # noqa: B023
        if restarts:
            node.kill()
            node.start()
        http.network.mend(*ENDS)
        caller.pause(1)
        assert not (restarts and node.called)
        arrived += len(node.called)
    assert 0 < arrived < 20
