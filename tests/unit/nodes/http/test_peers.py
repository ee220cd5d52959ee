"""Requests to other nodes: their answers, and whether a failed one may have arrived."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from nodes.http import peers as module
from nodes.http.peers import Ask, NotJson, PeerError, PeerRefused, Peers, PeersBusy, Reply
from nodes.http.problem import problem_of
from tests.support.until import until

Serve = Callable[[socket.socket], None]


class Node:
    """A port that handles each connection by the next of these functions; the last one stays."""

    def __init__(self, *ways: Serve) -> None:
        self._ways = list(ways)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/x"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                way = self._ways.pop(0) if len(self._ways) > 1 else self._ways[0]
                way(connection)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


def stay_silent(connection: socket.socket) -> None:
    connection.settimeout(10)
    while connection.recv(65536):  # head and body can arrive separately
        pass


def answer(body: bytes, status: int = 200) -> Serve:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head + body)
        stay_silent(connection)  # a body not read yet would reset the connection

    return serve


def hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


@pytest.fixture
def peers() -> Iterator[Peers]:
    found = Peers(4, lambda: 42.0)
    yield found
    found.close()


def ask(peers: Peers, *ways: Serve) -> Reply:
    node = Node(*ways)
    try:
        return peers.ask(Ask(node.url, "POST", body={"a": 1}))
    finally:
        node.close()


def test_an_answer_has_status_body_and_arrival_time(peers: Peers) -> None:
    assert ask(peers, answer(b'{"a":1}', 503)) == Reply(503, {"a": 1}, 42.0, sent_at=42.0)


def test_a_kept_connection_that_was_closed_is_reopened(peers: Peers) -> None:
    assert ask(peers, hang_up, answer(b"{}")).status == 200


def test_a_request_whose_repetition_is_refused_is_in_doubt(peers: Peers) -> None:
    node = Node(hang_up)

    def hang_up_for_good(connection: socket.socket) -> None:
        node.close()
        hang_up(connection)

    node._ways = [hang_up_for_good]
    with pytest.raises(PeerError, match="cannot be reached") as failed:
        peers.ask(Ask(node.url))
    assert failed.value.sent is True


def test_an_answer_to_a_repeated_request_is_marked(peers: Peers) -> None:
    assert ask(peers, hang_up, answer(b"{}", 503)).repeated is True
    assert ask(peers, answer(b"{}", 503)).repeated is False


def test_a_request_to_a_closed_port_was_not_sent(peers: Peers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PeerError, match="cannot be reached") as failed:
        peers.ask(Ask(f"http://127.0.0.1:{port}"))
    assert failed.value.sent is False


def require(peers: Peers, *ways: Serve) -> Reply:
    node = Node(*ways)
    try:
        return peers.require(Ask(node.url, "POST", body={}), "primary", write_id="w")
    finally:
        node.close()


def test_a_required_answer_is_a_200(peers: Peers) -> None:
    assert require(peers, answer(b'{"a":1}')).body == {"a": 1}


def test_a_required_answer_that_is_a_problem_is_passed_on(peers: Peers) -> None:
    with pytest.raises(PeerRefused) as refused:
        require(peers, answer(b'{"detail":"No."}', 409))
    assert (refused.value.status, refused.value.body) == (409, {"detail": "No."})


def test_a_problem_that_answers_a_repeated_write_leaves_its_outcome_in_doubt(peers: Peers) -> None:
    with pytest.raises(PeerRefused) as refused:
        require(peers, hang_up, answer(b'{"outcome":"not_applied"}', 503))
    assert refused.value.body == {"outcome": "unknown"}


def test_a_required_node_that_does_not_answer_is_a_problem_with_its_role(peers: Peers) -> None:
    with pytest.raises(PeerError) as failed:
        require(peers, answer(b"no json"))
    problem = problem_of(failed.value)
    assert problem is not None
    assert (problem.status, problem.slug, problem.outcome) == (503, "primary-unavailable", "unknown")
    assert (problem.extra, problem.headers) == ({"write_id": "w"}, {"Retry-After": "1"})


@pytest.mark.parametrize("way", [hang_up, answer(b"no json"), answer(b"[]"), answer(b"NaN")])
def test_an_invalid_answer_leaves_a_sent_request_in_doubt(peers: Peers, way: Serve) -> None:
    with pytest.raises(PeerError) as failed:
        ask(peers, way)
    assert failed.value.sent is True
    assert isinstance(failed.value, NotJson) == (way is not hang_up)


def test_a_silent_node_times_out_and_leaves_a_doubt(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MARGIN_SECONDS", 0.1)
    with pytest.raises(PeerError, match="did not answer in time") as failed:
        ask(peers, stay_silent)
    assert failed.value.sent is True


def test_several_nodes_are_queried_concurrently_and_failures_are_returned_with_answers(peers: Peers) -> None:
    arrived = threading.Barrier(2, timeout=5)

    def meet(connection: socket.socket) -> None:
        arrived.wait()  # passes only when both requests are there at the same time
        answer(b"{}")(connection)

    nodes = [Node(meet), Node(meet), Node(hang_up)]
    try:
        began = time.monotonic()
        found = peers.ask_all({str(number): Ask(node.url) for number, node in enumerate(nodes)})
        assert time.monotonic() - began < 5
    finally:
        for node in nodes:
            node.close()
    assert [isinstance(reply, Reply) for reply in found.values()] == [True, True, False]
    assert list(found) == ["0", "1", "2"]


def test_requests_beyond_the_room_are_refused_before_anything_is_sent(peers: Peers) -> None:
    node = Node(answer(b"{}"))
    asks = {str(number): Ask(node.url) for number in range(3)}
    try:
        with peers.team(2):
            with pytest.raises(PeersBusy), peers.team(3):
                pass
            with pytest.raises(PeersBusy):
                peers.run_all(dict.fromkeys(asks, lambda: 1))
            refused = [*peers.ask_all(asks).values(), *dict(peers.ask_each(asks, 5)).values()]
            assert all(isinstance(error, PeerError) and not error.sent for error in refused)
            assert peers.run_all({"a": lambda: 1, "b": lambda: 2}) == {"a": 1, "b": 2}
        until(lambda: isinstance(peers.ask_all({**asks, "4": Ask(node.url)})["0"], Reply))
    finally:
        node.close()


def has_room(peers: Peers) -> bool:
    try:
        with peers.team(4):
            return True
    except PeersBusy:
        return False


def test_a_place_is_occupied_while_its_request_runs(peers: Peers) -> None:
    go_on = threading.Event()
    with peers.team(4) as team:
        running = team.submit(go_on.wait)
    assert not has_room(peers)
    go_on.set()
    assert running.result(5)
    until(lambda: has_room(peers))
