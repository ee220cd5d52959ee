"""Why the client refuses a request; ``app.py`` maps each to a problem."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any


class ClientError(Exception):
    """``extra``: further members of the problem details; ``headers``: of the answer."""

    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.extra = extra


class NoReplicas(ClientError): ...


class UnknownReplica(ClientError):
    """Raised when a change names no registered replica."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        detail = f"No replica {name[:100]!r}; known: {', '.join(known) or 'none yet'}"
        super().__init__(detail, known_replicas=list(known))


class UnprovenReplica(ClientError):
    """Raised for a replica that has not proved that it has the admin token: any URL can be registered."""


class NoSuchExperiment(ClientError): ...


class ExperimentEnded(ClientError): ...


class ExperimentRunning(ClientError):
    """Raised when a scene would change the lab under an experiment."""


class NoSuchScene(ClientError): ...


class SceneRunning(ClientError):
    """Raised when an experiment or another scene would change the lab under a scene."""

    headers = MappingProxyType({"Retry-After": "10"})


class NotRestored(ClientError):
    """Raised when what a scene changed is not completely restored yet."""


class QueueFull(ClientError):
    """Raised when the limit of waiting and running experiments is reached."""

    headers = MappingProxyType({"Retry-After": "10"})


class TooManyListeners(ClientError):
    """Raised when all event streams are in use."""

    headers = MappingProxyType({"Retry-After": "5"})


class ReadRefused(ClientError):
    """Raised when a read at a level is refused."""


class NoReplicaToRead(UnknownReplica, ReadRefused):
    """Raised when a read names an unknown replica, or no replica is registered."""


class LevelNotAvailable(ReadRefused):
    """Raised when no replica can serve a level."""


class LevelNotReached(ReadRefused):
    """Raised when a replica does not have the required position in time."""


class SessionError(ReadRefused):
    """Raised when a session cannot continue. ``cookie``: the ``Set-Cookie`` header that ends it or starts a new one."""

    def __init__(self, detail: str, cookie: str | None = None, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.headers = {} if cookie is None else {"Set-Cookie": cookie}


class MalformedPosition(SessionError): ...


class ForeignSession(SessionError): ...


class PositionNotIssued(SessionError):
    """Raised when the lab has not reached a session's position."""


class EarlierEpoch(SessionError):
    """Raised when the lab was reset since the session's last position."""
