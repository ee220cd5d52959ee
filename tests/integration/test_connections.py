"""Receiving requests: clients with unfinished requests or idle connections do not block a node."""

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import psutil
import pytest
import urllib3

from lab.local.supervisor import Lab
from tests.integration.conftest import metric
from tests.support.http import post
from tests.support.ports import base_port
from tests.support.processes import foreground
from tests.support.service import CONNECTIONS, THREADS
from tests.support.until import until

pytestmark = pytest.mark.xdist_group("connections")
Address = tuple[str, int]
ATTACKERS = 3 * CONNECTIONS
CLOSE = {"Connection": "close"}
HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
UNFINISHED = [
    *[b"", b"G", b"GET /health HTTP/1.1\r\nHost: localh", HEAD + b"Content-Length: 9\r\n\r\n1234"],
    *[HEAD + b"Content-Length: 99999\r\n\r\n1234", HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\n12"],
    b"POST /faults/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n",
    b"POST /faults/echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
]


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[Address, int]]:
    """The small service's address and process id."""
    found = ("127.0.0.1", base_port())
    line = [sys.executable, "-m", "tests.support.service"]
    with foreground(line, env={**os.environ, "LAB_PORT": str(found[1])}) as process:
        until(lambda: is_up(found), 30)
        yield found, process.pid
        process.terminate()
        output, _ = process.communicate(timeout=20)
        assert "Traceback" not in output


def is_up(address: Address, path: str = "/health") -> bool:
    """Return whether it answers on a new connection; an idle one can be closed while it is being reused."""
    try:
        return (
            urllib3.request("GET", f"http://{address[0]}:{address[1]}{path}", headers=CLOSE, retries=False).status
            == 200
        )
    except urllib3.exceptions.HTTPError:
        return False


@pytest.fixture
def address(service: tuple[Address, int]) -> Address:
    """The small service's address."""
    return service[0]


@pytest.fixture
def held(address: Address) -> Iterator[ExitStack]:
    """Connections that a test holds until its end; all threads are free again before the next test."""
    with ExitStack() as stack:
        yield stack
    until(lambda: is_up(address, "/wait?seconds=0"))


def opened(held: ExitStack, address: Address, sent: bytes) -> socket.socket:
    sock: socket.socket = held.enter_context(socket.create_connection(address, timeout=10))
    sock.sendall(sent)
    return sock


def answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next answer."""
    with sock.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = {}
        while (line := file.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, file.read(int(headers["content-length"]))


def ends(sock: socket.socket) -> None:
    """Read to the end, which must come before the socket's timeout."""
    with suppress(ConnectionError):
        while sock.recv(4096):
            pass


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent", UNFINISHED, ids=range(len(UNFINISHED)))
def test_incomplete_requests_are_closed_and_do_not_block_health_checks(
    address: Address, held: ExitStack, sent: bytes
) -> None:
    unfinished = [opened(held, address, sent) for _ in range(ATTACKERS)]
    assert is_up(address)
    assert is_up(address, "/wait?seconds=0")
    for sock in unfinished:
        ends(sock)


def test_idle_connections_make_room_for_new_ones(address: Address, held: ExitStack) -> None:
    idle = []
    for _ in range(ATTACKERS):
        idle.append(opened(held, address, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        assert answer(idle[-1])[0] == 200
    assert is_closed(idle[0])


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="prlimit is Linux's")
def test_without_free_file_descriptors_an_idle_connection_makes_room(
    service: tuple[Address, int], held: ExitStack
) -> None:
    address, pid = service
    (worker,) = psutil.Process(pid).children()
    _, limit = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (worker.num_fds() + 4, limit))
    try:
        test_idle_connections_make_room_for_new_ones(address, held)
        assert is_up(address)
    finally:
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (limit, limit))


def test_waiting_requests_leave_the_reserved_threads_free_and_others_get_a_503(
    address: Address, held: ExitStack
) -> None:
    for _ in range(THREADS):
        opened(held, address, b"GET /wait?seconds=2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    refused = opened(held, address, b"GET /wait?seconds=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert is_up(address)
    status, headers, body = answer(refused)
    assert (status, headers["retry-after"], headers["content-type"]) == (503, "1", "application/problem+json")
    assert json.loads(body)["outcome"] == "not_applied"
    assert is_closed(refused)


def test_clients_that_keep_a_finished_connection_open_do_not_block_others(address: Address, held: ExitStack) -> None:
    began = time.monotonic()
    for _ in range(10):
        last = opened(held, address, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer(last)[0] == 200
    assert is_up(address)
    assert time.monotonic() - began < 10


def test_a_body_that_does_not_arrive_in_time_is_a_408(address: Address, held: ExitStack) -> None:
    status, _, body = answer(opened(held, address, HEAD + b"Content-Length: 99999\r\n\r\n1234"))
    assert (status, json.loads(body)["type"]) == (408, "urn:eventual-consistency-lab:request-timeout")


def test_an_endless_head_is_refused(address: Address, held: ExitStack) -> None:
    assert answer(opened(held, address, HEAD + b"X: " + b"x" * 40_000))[0] == 431


PARTS: dict[str, tuple[list[bytes], list[Any]]] = {
    "byte by byte": ([bytes([byte]) for byte in HEAD + b"Content-Length: 2\r\n\r\nab"], [2]),
    "small": ([HEAD + b"Content-Length: 9\r\n\r\n1234", b"56789"], [9]),
    "large": ([HEAD + b"Content-Length: 1000000\r\n\r\n", b"x" * 999_999, b"x"], [1_000_000]),
    "chunks": ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\n12", b"34\r\n0\r\n", b"\r\n"], [4]),
    "pipelined": ([(HEAD + b"Content-Length: 1\r\n\r\nx") * 2 + HEAD, b"Content-Length: 3\r\n\r\nxyz"], [1, 1, 3]),
    "large, pipelined": ([HEAD + b"Content-Length: 50000\r\n\r\n" + b"x" * 50_000 + HEAD + b"\r\n"], [50_000, 0]),
    "expect": ([HEAD + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n", b"x"], [1]),
}


@pytest.mark.parametrize(("parts", "expected"), PARTS.values(), ids=PARTS)
def test_a_request_can_arrive_in_parts(
    address: Address, held: ExitStack, parts: list[bytes], expected: list[int]
) -> None:
    sock = opened(held, address, b"")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        sock.sendall(part)
        if b"Expect" in part:
            assert sock.recv(4096).startswith(b"HTTP/1.1 100")
    with sock.makefile("rb") as file:
        found = []
        while len(found) < len(expected):
            if (line := file.readline()).startswith(b'{"bytes"'):
                found.append(json.loads(line)["bytes"])
    assert found == expected


def waiting(*urls: str) -> list[float]:
    """The number of requests that wait on each node."""
    return [metric(url, "ec_waiting_readers")[""] for url in urls]


def test_a_wait_ends_on_every_node_when_its_client_disconnects(fresh: Lab) -> None:
    replica, url = next(iter(fresh.replica_urls.items()))
    post(f"{fresh.client_url}/faults", {"replica": replica, "fault": "pause"})
    client = ("127.0.0.1", int(fresh.client_url.rpartition(":")[2]))
    body = b'{"key":"k","value":1}'
    head = b"Host: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with ExitStack() as held:
        for path in (b"/write-and-wait?timeout_ms=600000", b"/write?acks=2&timeout_ms=600000") * 4:
            opened(held, client, b"POST " + path + b" HTTP/1.1\r\n" + head + body)
        until(lambda: waiting(url, fresh.primary_url) == [4, 4])
    until(lambda: waiting(url, fresh.primary_url) == [0, 0])
    post(f"{fresh.client_url}/faults/reset")


def test_with_a_low_limit_of_open_files_excess_requests_get_a_503(fresh: Lab) -> None:
    files = 256
    port = base_port()
    environment = {"LAB_PORT": str(port), "LAB_PRIMARY_URL": fresh.primary_url, "LAB_REDIS_URL": fresh.redis_url}
    line = [sys.executable, "-m", "nodes", "client"]
    limits = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))}
    address = ("127.0.0.1", port)
    with foreground(line, env={**os.environ, **environment}, cwd=fresh.data_dir, **limits) as process:
        until(lambda: is_up(address), 30)
        body = b'{"key":"k","value":1}'
        for head in (
            b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /write-and-wait HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        ):
            with ExitStack() as held:
                callers = [opened(held, address, head) for _ in range(200)]
                answers = [answer(caller) for caller in callers]
            assert {status for status, _, _ in answers} <= {200, 503}
            assert all("retry-after" in headers for status, headers, _ in answers if status == 503)
            assert 200 in {status for status, _, _ in answers}
        assert is_up(address)
        process.terminate()
        output, _ = process.communicate(timeout=20)
    assert "Traceback" not in output
    assert f"only {files} files" in output
