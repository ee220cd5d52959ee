"""The delaying proxy of the tests: never early, in order, one direction only."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.delaying_proxy import DelayingProxy
from tests.support.until import until


class Echo:
    """Sends each byte back, and records when it received it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.received: dict[bytes, float] = {}
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    while byte := connection.recv(1):
                        self.received[byte] = time.monotonic()
                        connection.sendall(byte)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    found = Echo()
    yield found
    found.close()


def dial(proxy: DelayingProxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), 10)
    connection.settimeout(10)
    return connection


def returned(connection: socket.socket, sent: bytes) -> dict[bytes, float]:
    connection.sendall(sent)
    return {connection.recv(1): time.monotonic() for _ in sent}


def test_what_the_server_sends_arrives_late_and_in_order_while_its_input_is_not_delayed(echo: Echo) -> None:
    with DelayingProxy.running(echo.port, 0.2) as proxy, dial(proxy) as connection:
        found = returned(connection, b"abcdef")
        assert list(found) == [b"a", b"b", b"c", b"d", b"e", b"f"]
        assert all(at - echo.received[byte] >= 0.2 for byte, at in found.items())
        assert echo.received[b"a"] <= found[b"a"] - 0.2


def test_a_changed_delay_applies_to_what_arrives_from_then_on_and_does_not_reorder(echo: Echo) -> None:
    with DelayingProxy.running(echo.port, 0.2) as proxy, dial(proxy) as connection:
        connection.sendall(b"a")
        until(lambda: b"a" in echo.received)
        proxy.delay_seconds = 0.0
        found = returned(connection, b"b")
        assert list(found) == [b"a"]
        assert connection.recv(1) == b"b"


def test_a_cut_proxy_breaks_connections_and_accepts_none_until_it_is_mended(echo: Echo) -> None:
    with DelayingProxy.running(echo.port, 0.0) as proxy:
        with dial(proxy) as connection:
            assert list(returned(connection, b"a")) == [b"a"]
            proxy.cut()
            assert connection.recv(1) == b""
        with dial(proxy) as refused, suppress(ConnectionError):
            assert refused.recv(1) == b""
        proxy.mend()
        with dial(proxy) as again:
            assert list(returned(again, b"b")) == [b"b"]


def test_nothing_is_left_of_a_closed_proxy(echo: Echo) -> None:
    before = threading.active_count()
    with DelayingProxy.running(echo.port, 0.0) as proxy, dial(proxy) as connection:
        returned(connection, b"a")
    until(lambda: threading.active_count() <= before)
    with pytest.raises(ConnectionError):
        dial(proxy)
