"""TLS contexts that connections share, and that trust the given authorities only.

redis-py makes a context for each connection. That takes 20 ms, because it reads all authorities of the system, which it
then trusts as well as the given ones.
"""

import os
import socket
import ssl
from contextlib import suppress
from functools import lru_cache
from typing import Any


class _Shared:
    """A mixin for redis-py's TLS connections."""

    host: str
    ca_certs: str | None
    ca_path: str | None
    certfile: str | None
    keyfile: str | None
    check_hostname: bool

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        files = (self.ca_certs, self.ca_path, self.certfile, self.keyfile)
        found = _context(*files, self.check_hostname, tuple(os.stat(file).st_mtime_ns for file in files if file))
        return found.wrap_socket(sock, server_hostname=self.host)


def shared(connection_class: Any) -> Any:
    """Return this class of connections, or with TLS one whose connections share contexts."""
    uses_tls = hasattr(connection_class, "_wrap_socket_with_ssl")
    return type(connection_class.__name__, (_Shared, connection_class), {}) if uses_tls else connection_class


def shutdown(sock: socket.socket) -> None:
    """End a connection in both directions: not by TLS's own method, after which what has arrived is read without
    deciphering.
    """
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


@lru_cache(maxsize=8)
def _context(
    ca_certs: str | None,
    ca_path: str | None,
    certfile: str | None,
    keyfile: str | None,
    check_hostname: bool,
    _changed_ns: tuple[int, ...],  # of the files: a renewed certificate is read
) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=ca_certs, capath=ca_path)
    found.check_hostname = check_hostname
    if certfile is not None or keyfile is not None:
        found.load_cert_chain(certfile or "", keyfile)
    return found
