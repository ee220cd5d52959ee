"""Whether the caller of the current request still waits for its answer."""

from __future__ import annotations

import socket
from collections.abc import Callable

from flask import has_request_context, request
from werkzeug.exceptions import ClientDisconnected

from nodes.runtime.connections import is_readable

_CHECK_SECONDS = 1.0


def wait(step: Callable[[float], bool], timeout_seconds: float, monotonic: Callable[[], float]) -> bool:
    """Wait for ``step``, which waits for so many seconds and returns whether what it waits for has come.

    Raises ``ClientDisconnected`` about a second after the caller hung up. Outside of a request there is no caller.
    """
    deadline = monotonic() + timeout_seconds
    while True:
        left = deadline - monotonic()
        if step(max(0.0, min(left, _CHECK_SECONDS))):
            return True
        if left <= _CHECK_SECONDS:
            return False
        require()


def require() -> None:
    """Raises ``ClientDisconnected`` where the caller of the current request has hung up."""
    sock: socket.socket | None = request.environ.get("gunicorn.socket") if has_request_context() else None
    if sock is not None and _is_closed(sock):
        raise ClientDisconnected


def _is_closed(sock: socket.socket) -> bool:
    try:
        return is_readable(sock, 0) and sock.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):  # ValueError: this end is closed already
        return True
