"""A Sentinel of the simulated world: it answers which log server is master. Failovers are the world's decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions

from lab.simulation.log_server import LogServer
from lab.simulation.scheduler import Process


class Sentinel:
    """It is asked like a log server."""

    is_up = True
    is_frozen = False
    incarnation = 0

    def __init__(self, name: str, master: LogServer) -> None:
        self.name, self.master, self.epoch = name, master, 1
        self.backlog: list[Callable[[], None]] = []

    def open(self, answer: Callable[[Any], None], _client: Process) -> Callable[[Any], None]:
        return answer

    def close(self, session: object) -> None:
        """Nothing is kept of a connection."""

    def promote(self, master: LogServer) -> None:
        self.master, self.epoch = master, self.epoch + 1

    def execute(self, session: Callable[[Any], None], commands: Sequence[Sequence[bytes]]) -> None:
        for fields in commands:
            asked = tuple(word.decode().upper() for word in fields[:2])
            place = [b"127.0.0.1", str(self.master.port).encode()]
            if asked == ("SENTINEL", "MASTER"):
                known = {"ip": place[0], "port": place[1], "flags": b"master", "config-epoch": str(self.epoch).encode()}
                session([word for name, value in known.items() for word in (name.encode(), value)])
            elif asked == ("SENTINEL", "GET-MASTER-ADDR-BY-NAME"):
                session(place)
            else:
                session(exceptions.ResponseError(f"unknown command {asked[0]}"))
