"""Connections to the log server, and the translation of their failures into ``broker.errors``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.errors import LogMissing, LogRefused, LogUnreachable, OutcomeUnknown

Client = redis.Redis


class _NotConnected(exceptions.ConnectionError):
    """No connection, so nothing was sent: the one distinction redis-py does not make."""


class _Refusal:
    """Mixed into redis-py's connection classes, to tell a failed connect from a failed command."""

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            raise _NotConnected(str(error)) from error


def connect(
    url: str, *, answer_timeout_seconds: float = 2.0, max_connections: int = 256, as_text: bool = True
) -> Client:
    """Make a client for the log; nothing is sent before the first command. Without ``as_text`` it answers in bytes.

    Commands are never retried by the client library: a retried append would be a second write, and a retried group
    read would leave entries delivered but unseen. A command that has no answer after ``answer_timeout_seconds`` fails.
    Raises ``ValueError`` for a URL that is not a Redis URL.
    """
    pool = redis.ConnectionPool.from_url(
        url,
        max_connections=max_connections,
        socket_timeout=answer_timeout_seconds,
        socket_connect_timeout=min(answer_timeout_seconds, 2.0),
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=as_text,
        encoding_errors="replace",
    )
    base: Any = pool.connection_class
    pool.connection_class = type(f"Lab{base.__name__}", (_Refusal, base), {})
    return redis.Redis(connection_pool=pool)


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's exceptions into the tree of ``broker.errors``, by what each means for a command."""
    try:
        yield
    except (_NotConnected, exceptions.BusyLoadingError, exceptions.MaxConnectionsError) as error:
        raise LogUnreachable(f"the log server cannot be reached: {error}") from error
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        raise OutcomeUnknown(f"the log server did not answer: {error}") from error
    except exceptions.ResponseError as error:
        if "NOLOG" in str(error) or "NOGROUP" in str(error) or "UNBLOCKED" in str(error):
            raise LogMissing(f"the log server holds no log: {error}") from error
        raise LogRefused(f"the log server refused: {error}") from error
