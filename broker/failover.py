"""Failovers of a log server that Sentinels watch, on command: the same, there and back, or because it is cut off.

``SENTINEL FAILOVER`` leaves the former master a master for up to 10 s, and an isolated one stays a master until it is
healed: whoever is still connected to it can write to it. Both are what a failover does to acknowledged writes.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis import exceptions

from broker.address import Address, NotLocated, Sentinels, Server, ask
from broker.connection import translated
from broker.errors import LogRefused

# The users of the log servers as which replicas and Sentinels log in: without them a server is cut off from both.
REPLICA, SENTINEL = _USERS = "replica", "sentinel"
_PREFERRED, _USUAL = 1, 100  # of replica-priority: the lowest becomes master


class Failovers:
    """Methods return the master before, and raise ``broker.errors.LogError``."""

    def __init__(self, address: Address) -> None:
        self._address = address

    @property
    def are_possible(self) -> bool:
        return isinstance(self._address, Sentinels)

    def failover(self) -> Server:
        """Let another server become master. The present one is preferred for the next failover."""
        with self._asked() as sentinels:
            master = sentinels.locate()
            for server in sentinels.servers():
                priority = _PREFERRED if server == master else _USUAL
                with suppress(exceptions.ConnectionError, exceptions.TimeoutError):  # it is down
                    ask(sentinels.at(server), "CONFIG", "SET", "replica-priority", str(priority))
            return self._promote(sentinels)

    def failback(self) -> Server:
        """Let the server that was master before the last failover become master again."""
        with self._asked() as sentinels:
            return self._promote(sentinels)

    def isolate_master(self) -> Server:
        """Cut the master off from its replicas and the Sentinels, not from the nodes."""
        with self._asked() as sentinels:
            master = sentinels.locate()
            if not set(_USERS) <= set(ask(sentinels.at(master), "ACL", "USERS")):
                need = f"its servers need the users {' and '.join(_USERS)}, as `lab up --ha` gives them"
                raise LogRefused(f"the master cannot be isolated: {need}")
            for user in _USERS:
                ask(sentinels.at(master), "ACL", "SETUSER", user, "off")
                ask(sentinels.at(master), "CLIENT", "KILL", "USER", user)
            return master

    def heal(self) -> list[Server]:
        """Let every server be reached again, and return those that did not answer: they may still be cut off."""
        silent = []
        with self._asked() as sentinels:
            for server in sentinels.servers():
                try:
                    for user in _USERS:
                        ask(sentinels.at(server), "ACL", "SETUSER", user, "on")
                except exceptions.NoPermissionError:  # then the lab cannot have isolated it either
                    continue
                except (exceptions.ConnectionError, exceptions.TimeoutError):
                    silent.append(server)
        return silent

    @staticmethod
    def _promote(sentinels: Sentinels) -> Server:
        master = sentinels.locate()
        next(sentinels.answers(sentinels.known, "SENTINEL", "FAILOVER", sentinels.name))
        return master

    @contextmanager
    def _asked(self) -> Iterator[Sentinels]:
        if not isinstance(self._address, Sentinels):
            raise LogRefused("a failover needs Sentinels, and this log has none: `lab up --ha` starts them")
        try:
            with translated():
                yield self._address
        except NotLocated as error:
            raise LogRefused(f"no Sentinel did it: {error}") from error
