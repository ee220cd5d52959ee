"""TLS connections share a context that trusts the given authorities only."""

import os
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.connection import Connection, SSLConnection

from broker import tls
from broker.address import parse
from broker.connection import Link, connect, translated
from broker.errors import OutcomeUnknown

ROLE = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"


def authority(directory: Path, name: str, key: str = os.devnull) -> str:
    path = directory / "ca.crt"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", str(path)]
    subprocess.run([*new, *files], check=True, capture_output=True)
    return str(path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server that says that it is a master, and then answers each command with 1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path := authority(tmp_path, "own", str(tmp_path / "key")), tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with context.wrap_socket(listening.accept()[0], server_side=True) as client:
                answer = ROLE
                while client.recv(100):
                    client.sendall(answer)
                    answer = b":1\r\n"

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"rediss://127.0.0.1:{listening.getsockname()[1]}?ssl_ca_certs={path}"
        thread.join(10)


@pytest.mark.needs("openssl")
def test_a_connection_that_is_cut_reads_the_response_that_has_arrived_and_no_more(server: str) -> None:
    link = Link(parse(server))
    connection = connect(link).connection_pool.get_connection()
    connection.send_command("INCR", "k")
    assert select.select([connection._sock], [], [], 10)[0]
    link.cut()
    assert connection.read_response() == 1
    with pytest.raises(OutcomeUnknown), translated():
        connection.read_response()


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """The contexts that connections use."""
    used: list[ssl.SSLContext] = []
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", lambda self, *_, **__: used.append(self))
    return used


def wrap(**options: Any) -> None:
    tls.shared(SSLConnection)(host="h", **options)._wrap_socket_with_ssl(None)


def names(context: ssl.SSLContext) -> list[Any]:
    return [one["subject"][0][0][1] for one in context.get_ca_certs()]


@pytest.mark.needs("openssl")
def test_only_the_given_authority_is_trusted_until_its_file_changes(
    tmp_path: Path, contexts: list[ssl.SSLContext]
) -> None:
    path = authority(tmp_path, "first")
    wrap(ssl_ca_certs=path)
    wrap(ssl_ca_certs=path)
    authority(tmp_path, "second")
    os.utime(path, ns=(1, 1))
    wrap(ssl_ca_certs=path)
    assert [names(one) for one in contexts] == [["first"], ["first"], ["second"]]
    assert contexts[0] is contexts[1]
    assert {one.verify_mode for one in contexts} == {ssl.CERT_REQUIRED}


def test_host_names_are_checked_unless_that_is_switched_off(contexts: list[ssl.SSLContext]) -> None:
    wrap()
    wrap(ssl_check_hostname=False)
    assert [one.check_hostname for one in contexts] == [True, False]
    assert contexts[0].cert_store_stats()["x509_ca"] > 0, "the system's authorities"


def test_connections_without_tls_stay_as_they_are() -> None:
    assert tls.shared(Connection) is Connection
