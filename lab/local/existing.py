"""A running log server that a lab uses instead of starting one."""

import threading
import time
from collections.abc import Collection

from broker.address import without_password
from lab.errors import LabError
from lab.local.layout import NAMESPACE

_HEARTBEAT_SECONDS = 2.5  # a replica that has just stopped looks alive, but sends no more heartbeats
_POLL_SECONDS = 0.1


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

    shown = without_password(url)
    try:
        client = connect(url)
        log, registry = History(client, NAMESPACE), Registry(client, NAMESPACE)
        log.now_us()
        hazard = log.hazard()
        before = heartbeats()
        deadline = time.monotonic() + _HEARTBEAT_SECONDS
        while before and time.monotonic() < deadline and not stop.wait(_POLL_SECONDS):
            if taken := heartbeats() - before:
                advice = "use another database of it (such as redis://HOST:PORT/1), or stop that lab"
                raise LabError(f"--redis-url: another lab runs on this log server, with {min(taken)[0]}; {advice}")
    except ValueError as error:
        raise LabError(f"--redis-url {shown!r} is not the URL of a log server: {error}") from None
    except LogError as error:
        raise LabError(f"--redis-url {shown}: {error}") from None
    if hazard is not None:
        raise LabError(f"--redis-url: {hazard}")
