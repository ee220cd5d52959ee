"""A running log server, or several, that a lab uses instead of starting one."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from broker import address
from broker.address import Address, without_password
from lab.errors import LabError
from lab.local.layout import NAMESPACE

_HEARTBEAT_SECONDS = 2.5  # a replica that has just stopped looks alive, but sends no more heartbeats
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 0.3
_MEANINGS = {
    "unknown command 'SELECT'": "it is a Sentinel; use redis+sentinel://HOST:26379/MASTER-NAME",
    "unknown command 'SENTINEL'": "it names a log server where a Sentinel is expected",
    "no Sentinel answers.*(username-password|Authentication required)": (
        "the Sentinels refused the password; theirs is sentinel_password in the URL"
    ),
    "EOF occurred in violation of protocol|alert certificate required": (
        "the server ended the TLS handshake; it may require a client certificate"
        " (ssl_certfile and ssl_keyfile in the URL)"
    ),
}
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


def require_usable(url: str, replicas: Collection[str], stop: threading.Event) -> None:
    """Raise ``LabError`` if the log server cannot be used, or another lab with one of these replicas runs on it."""
    # Imported here: not needed with the embedded log server, which saves the supervisor memory.
    from broker.connection import connect
    from broker.errors import LogError
    from broker.history import History
    from broker.registry import Registry

    def heartbeats() -> set[tuple[str, int]]:
        members, now_us = registry.members(), log.now_us()
        return {(one.replica, one.seen_at_us) for one in members if one.replica in replicas and one.is_live(now_us)}

    shown, found = without_password(url), parsed(url)
    if (reason := _look(found)) is not None:
        raise LabError(f"--redis-url {shown}: {reason}")
    try:
        client, namespace = connect(url), found.namespace(NAMESPACE)
        log, registry = History(client, namespace), Registry(client, namespace)
        log.now_us()
        hazard = _cluster(client, found) or log.hazard()
        before = heartbeats() if hazard is None else set()
        deadline = time.monotonic() + _HEARTBEAT_SECONDS
        while before and time.monotonic() < deadline and not stop.wait(_POLL_SECONDS):
            if taken := heartbeats() - before:
                advice = "use another database of it (such as redis://HOST:PORT/1), or stop that lab"
                raise LabError(f"--redis-url: another lab runs on this log server, with {min(taken)[0]}; {advice}")
    except LogError as error:
        reason = next((meaning for words, meaning in _MEANINGS.items() if re.search(words, str(error))), str(error))
        raise LabError(f"--redis-url {shown}: {reason}") from None
    if hazard is not None:
        raise LabError(f"--redis-url: {hazard}")


def parsed(url: str) -> Address:
    """Raises ``LabError`` that names the wrong part of the URL."""
    try:
        found = address.parse(url)
    except ValueError as error:
        raise LabError(f"--redis-url {without_password(url)!r} is not the URL of a log server: {error}") from None
    options = parse_qs(urlsplit(url).query)
    for name in _FILES:
        if name in options and not Path(options[name][-1]).exists():
            raise LabError(f"--redis-url: there is no file {options[name][-1]!r}, which is its {name}")
    return found


def _cluster(client: Any, found: Address) -> str | None:
    """Whether the URL of one server is that of a node of a cluster, which refuses the keys of others' slots."""
    from redis.exceptions import RedisError

    with suppress(RedisError):
        if not found.moves and client.info("cluster").get("cluster_enabled"):
            return "the server is a node of a cluster; use redis+cluster://HOST:PORT"
    return None


def _look(found: Address) -> str | None:
    """Whether the first server of the URL uses TLS although the URL does not, or the other way around."""
    parts = urlsplit(found.url)
    if parts.scheme not in {"redis", "rediss"} or parts.hostname is None:
        return None
    server = (parts.hostname, parts.port or 6379)
    if parts.scheme == "rediss" and _speaks_plainly(server):
        return "the server does not use TLS; use redis instead of rediss in the URL"
    if parts.scheme == "redis" and not _speaks_plainly(server) and _speaks_tls(server):
        return "the server requires TLS; use rediss instead of redis in the URL"
    return None


def _speaks_plainly(server: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(server, _LOOK_SECONDS) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(1) in {b"+", b"-"}
    return False


def _speaks_tls(server: tuple[str, int]) -> bool:
    any_certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    any_certificate.check_hostname, any_certificate.verify_mode = False, ssl.CERT_NONE
    with suppress(OSError), socket.create_connection(server, _LOOK_SECONDS) as connection:
        any_certificate.wrap_socket(connection).close()
        return True
    return False
