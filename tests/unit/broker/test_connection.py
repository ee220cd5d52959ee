"""The outcome of a write after each kind of connection failure."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from redis import exceptions

from broker.address import Address, Server
from broker.connection import Link, connect, translated
from broker.errors import LogMissing, LogMoved, LogRefused, LogUnreachable, LogUnverified, NotApplied, OutcomeUnknown
from broker.log import ReplicationLog
from tests.support.logserver import LogServer


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port that accepts connections and closes them after the first data; counts them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]


def test_nothing_is_sent_if_no_server_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(LogUnreachable):
        ReplicationLog(connect(f"redis://127.0.0.1:{port}")).append("set", "k", "1", "w")


def test_a_handshake_that_fails_is_not_a_write_in_doubt(deaf: int) -> None:
    with pytest.raises(NotApplied):
        ReplicationLog(connect(f"redis://127.0.0.1:{deaf}", answer_timeout_seconds=1)).append("set", "k", "1", "w")


@pytest.mark.parametrize(
    ("raised", "meaning"),
    [
        (exceptions.ConnectionError("Connection closed by server."), OutcomeUnknown),
        (exceptions.TimeoutError("Timeout reading from socket"), OutcomeUnknown),
        (exceptions.InvalidResponse('Protocol error, got "H" as reply type byte'), OutcomeUnknown),
        (exceptions.BusyLoadingError("loading"), LogUnreachable),
        (exceptions.MaxConnectionsError("too many"), LogUnreachable),
        (exceptions.OutOfMemoryError("OOM"), LogRefused),
        (exceptions.AuthenticationError("Authentication required."), LogRefused),
        (exceptions.ReadOnlyError("You can't write", status_code="READONLY"), LogMoved),
        (exceptions.MovedError("2281 127.0.0.1:7000", status_code="MOVED"), LogMoved),
        (exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"), LogMoved),
        (exceptions.ResponseError("Command # 1 (X) of pipeline caused error: UNBLOCKED force"), LogMoved),
        (exceptions.MasterDownError("Link with MASTER is down", status_code="MASTERDOWN"), LogMoved),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), LogRefused),
        (exceptions.ClusterDownError("Hash slot not served", status_code="CLUSTERDOWN"), LogRefused),
        (exceptions.ResponseError("NOLOG the log has not been opened"), LogMissing),
        (exceptions.ResponseError("NOGROUP No such key"), LogMissing),
        (exceptions.ResponseError("UNBLOCKED the stream key no longer exists"), LogMissing),
    ],
)
def test_each_failure_has_one_meaning(raised: Exception, meaning: type[Exception]) -> None:
    with pytest.raises(meaning), translated():
        raise raised


class Scripted:
    """A client whose scripts return or fail as configured."""

    def __init__(self, *outcomes: Exception | list[object]) -> None:
        self.outcomes = list(outcomes)

    sha = ""

    def register_script(self, _: str) -> Scripted:
        return self

    def __call__(self, **_: object) -> str:
        return ""

    def execute_command(self, *_: object) -> list[object]:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


LOST = exceptions.TimeoutError("no answer")
UNVERIFIED = exceptions.ResponseError("UNVERIFIED this server took over")


def test_a_write_in_doubt_is_repeated_under_its_id() -> None:
    client = Scripted(LOST, [["repeated", "1", "7", "99"]])
    appended = ReplicationLog(client).append("set", "k", "1", "w")  # type: ignore[arg-type]
    assert appended is not None
    assert appended.repeated


def test_a_refusal_after_a_doubt_leaves_the_doubt() -> None:
    client = Scripted(LOST, exceptions.OutOfMemoryError("OOM"))
    with pytest.raises(OutcomeUnknown):
        ReplicationLog(client).append("set", "k", "1", "w")  # type: ignore[arg-type]


def test_a_restarted_server_is_verified_before_the_doubt_is_settled() -> None:
    client = Scripted(LOST, UNVERIFIED, [["repeated", "1", "7", "99"]])
    verified: list[int] = []
    log = ReplicationLog(client, repairs={LogUnverified: lambda: verified.append(1)})  # type: ignore[arg-type]
    appended = log.append("set", "k", "1", "w")
    assert (appended is not None and appended.repeated, verified) == (True, [1, 1]), "and before the first write"


def test_a_doubt_remains_if_the_server_cannot_be_verified() -> None:
    client = Scripted(LOST, UNVERIFIED)
    verify = Mock(side_effect=[None, LogUnreachable("gone again")])
    log = ReplicationLog(client, repairs={LogUnverified: verify})  # type: ignore[arg-type]
    with pytest.raises(OutcomeUnknown):
        log.append("set", "k", "1", "w")


@pytest.mark.parametrize("error", [LogUnreachable("no answer"), OutcomeUnknown("the epoch can have started")])
def test_a_first_write_is_not_sent_before_the_log_is_verified(error: Exception) -> None:
    client = Scripted([["applied", "1", "7", "99"]])
    verify = Mock(side_effect=[error, None])
    log = ReplicationLog(client, repairs={LogUnverified: verify})  # type: ignore[arg-type]
    with pytest.raises(LogUnreachable):
        log.append("set", "k", "1", "w")
    assert client.outcomes, "nothing was sent"
    log.append("set", "k", "1", "w")
    assert not client.outcomes


def test_attempts_are_bounded() -> None:
    client = Scripted(LOST, LOST, LOST, [["applied", "1", "1", "1"]])
    with pytest.raises(OutcomeUnknown):
        ReplicationLog(client).append("set", "k", "1", "w")  # type: ignore[arg-type]
    assert len(client.outcomes) == 1


@pytest.mark.parametrize(
    "option",
    ["protocol=3", "nosuch=1", "decode_responses=no", "retry_on_timeout=yes", "ssl_keyfile=x", "db=0&protocol="],
)
def test_an_option_that_is_not_allowed_is_rejected_by_name(option: str) -> None:
    name = option.rpartition("&")[2].partition("=")[0]
    with pytest.raises(ValueError, match=f"option '{name}' is not allowed"):
        connect(f"redis://127.0.0.1:9/0?{option}")


@pytest.mark.parametrize(
    "url", ["redis://h/0?client_name=a", "rediss://h?db=1&ssl_ca_certs=x&ssl_check_hostname=no", "unix:///s?db=2"]
)
def test_an_allowed_option_is_accepted(url: str) -> None:
    connect(url).connection_pool.make_connection()


class At(Address):
    """An address at which another server takes over while the first connection is made."""

    moves = True

    def __init__(self, *servers: Server) -> None:
        super().__init__("redis://h")
        self.servers = list(servers)

    def locate(self) -> Server:
        return self.servers.pop(0) if len(self.servers) > 1 else self.servers[0]


class Overtaken(Link):
    def made(self, connection: Any) -> None:
        self.locate()  # as the thread that follows the server does meanwhile
        super().made(connection)


def test_a_connection_to_a_server_that_was_replaced_meanwhile_is_not_kept(server: LogServer) -> None:
    at = At(Server("127.0.0.1", server.port), Server("localhost", server.port))
    client = connect(Overtaken(at))
    with pytest.raises(LogUnreachable, match="another server has taken over"), translated():
        client.ping()
    assert client.ping()


def test_an_idle_connection_to_a_server_that_was_replaced_costs_no_request(server: LogServer) -> None:
    at = At(Server("127.0.0.1", server.port))
    link = Link(at)
    client = connect(link)
    assert client.ping()
    at.servers = [Server("localhost", server.port)]
    link.follow()
    assert client.ping()
