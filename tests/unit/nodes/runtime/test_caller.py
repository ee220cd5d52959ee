"""A wait ends when its caller has hung up, wherever the request waits."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from broker.position import Position
from nodes.http.peers import Ask, Peers
from nodes.replica.history import Recent
from nodes.runtime import caller
from nodes.runtime.caller import CONNECTION, CallerLeft
from nodes.runtime.gate import EMPTY_STATE, PositionGate, State
from tests.support.until import until

TARGET = Position(1, 1)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller, "_CHECK_SECONDS", 0.01)


class Silent:
    """A node that receives a request and stays silent until its caller hangs up."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.left = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener:
            while connection.recv(4096):
                pass
        self.left.set()


@pytest.fixture
def sock() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The caller's end of a connection, and the node's."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def gate(_url: str) -> Any:
    return PositionGate(EMPTY_STATE, 1).wait_for(TARGET, 30)


def history(_url: str) -> Any:
    return Recent(10).since(0, 1, 30)


def peer(url: str) -> Any:
    return Peers(1, time.monotonic).ask(Ask(url, wait_ms=30_000))


def peers(url: str) -> Any:
    return Peers(1, time.monotonic).ask_all({"node": Ask(url, wait_ms=30_000)})


@contextmanager
def asked_by(sock: socket.socket) -> Iterator[None]:
    """A request whose caller is at the other end of this connection."""
    token = CONNECTION.set(sock)
    try:
        yield
    finally:
        CONNECTION.reset(token)


@pytest.mark.parametrize("wait", [gate, history, peer, peers])
def test_a_wait_ends_when_its_caller_hangs_up(
    sock: tuple[socket.socket, socket.socket], wait: Callable[[str], Any]
) -> None:
    theirs, ours = sock
    node = Silent()
    threading.Timer(0.05, theirs.close).start()
    began = time.monotonic()
    with asked_by(ours), pytest.raises(CallerLeft):
        wait(node.url)
    assert time.monotonic() - began < 20
    if wait in (peer, peers):  # which a node that it asked learns of too
        assert node.left.wait(10)


def test_a_wait_continues_while_its_caller_stays(sock: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = sock
    theirs.sendall(b"the next request")
    waiting = PositionGate(EMPTY_STATE, 1)
    state = State(TARGET, "w", 1)
    threading.Timer(0.1, partial(waiting.advance, state)).start()
    with asked_by(ours):
        assert waiting.wait_for(TARGET, 30) == state


def test_a_waiter_whose_caller_hung_up_leaves_its_place_and_wakes_the_next(
    sock: tuple[socket.socket, socket.socket],
) -> None:
    theirs, ours = sock
    waiting = PositionGate(EMPTY_STATE, 2)
    found: list[State] = []
    other = threading.Thread(target=lambda: found.append(waiting.wait_for(TARGET, 30)))
    theirs.close()
    with asked_by(ours):
        other.start()
        until(lambda: waiting.waiters == 1)
        with pytest.raises(CallerLeft):
            waiting.wait_for(TARGET, 30)
    assert waiting.waiters == 1
    waiting.advance(State(TARGET, "w", 1))
    other.join(10)
    assert [state.position for state in found] == [TARGET]
