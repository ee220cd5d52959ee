"""The caller of the current request: whether it is still connected, and its trace."""

import select
import socket
from collections.abc import Callable
from contextvars import ContextVar

_CHECK_SECONDS = 1.0
# Set for each request and passed to the threads that work for it; unset outside of requests.
CONNECTION: ContextVar[socket.socket | None] = ContextVar("CONNECTION", default=None)
TRACEPARENT: ContextVar[str] = ContextVar("TRACEPARENT", default="")


class CallerLeft(Exception):
    """Raised when the caller of the current request has hung up."""


class RequestTimeout(TimeoutError):
    """Raised when a request's body does not arrive in time."""


def wait(step: Callable[[float], bool], timeout_seconds: float, monotonic: Callable[[], float]) -> bool:
    """Call ``step``, which waits for seconds and returns whether its event occurred, until it did or the time is up.

    Raises ``CallerLeft`` about a second after the caller hung up.
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
    sock = CONNECTION.get()
    if sock is None:
        return
    try:
        closed = is_readable(sock, 0) and sock.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):  # ValueError: this end is already closed
        closed = True
    if closed:
        raise CallerLeft("the caller has hung up")


def is_readable(sock: socket.socket, timeout_seconds: float) -> bool:
    poll = select.poll()  # select.select() does not support descriptors above 1,023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_seconds) * 1000))
