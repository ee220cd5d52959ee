"""One node of the simulated lab: the app that a real process would serve, in tasks of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

from lab.simulation.disk import Disk
from lab.simulation.http_connections import Host, HttpConnections
from lab.simulation.log_connections import LogConnections
from lab.simulation.scheduler import Process, Scheduler
from nodes.primary import app as primary
from nodes.replica import app as replica
from nodes.runtime import serving
from nodes.runtime.config import Role, load
from nodes.runtime.store import StoreError

_CREATE: dict[Role, Any] = {"primary": primary.create_app, "replica": replica.create_app}
_RESTART_SECONDS = 0.5  # after which a supervisor starts an ended process again
_logger = logging.getLogger("lab.node")


class Node:
    """A node, across its processes. ``app`` is ``None`` while there is none."""

    def __init__(
        self,
        scheduler: Scheduler,
        connections: tuple[LogConnections, HttpConnections],
        role: Role,
        values: Mapping[str, str],
        disk: Disk | None = None,
    ) -> None:
        self._scheduler, self._role, self._values = scheduler, role, values
        self._log_connections, self._http_connections = connections
        self.name, self.disk = values["LAB_NODE_ID"], disk
        self.process = Process(self.name)
        self.app: Any = None
        self.on_app: Callable[[Any], None] = lambda _: None  # called with each process's app, before it begins
        self.is_away = False  # for long
        self.losses = 0  # of its files, or a part of them
        self.went_back = False  # whether they lack what the process before had committed

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self._values['LAB_PORT']}"

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"

    def start(self) -> None:
        self.process = process = Process(self.name)
        self._http_connections.hosts[self.netloc] = Host(process, self._refuse)
        self._scheduler.spawn(self._run, process)

    def _run(self) -> None:
        values = dict(self._values)
        if self.disk is not None:
            values["LAB_DATA_DIR"] = str(self.disk.directory)
        try:
            app = _CREATE[self._role](load(self._role, values))
        except StoreError as error:  # the process ends, and is started again
            _logger.warning("%s: %s", self.name, error)
            self._scheduler.after(_RESTART_SECONDS, self.restart)
            return
        self.app = app
        self.on_app(app)
        self.went_back = False
        self._http_connections.hosts[self.netloc] = Host(self.process, app)
        serving.begin(app)

    def restart(self) -> None:
        self.kill()
        self.start()

    def kill(self, how: Literal["killed", "power", "damaged"] = "killed") -> None:
        """End the process as ``kill -9`` does, or as a failure of its machine's power does."""
        if self.disk is None:
            self.end()
            return
        before = self.disk.directory
        if self.disk.is_damaged:
            how = "damaged"
        self._stop()
        self.disk.leave(how)  # before the files are closed, at which SQLite tidies them up
        self.end()
        self.disk.remove(before)
        self.went_back = self.went_back or how != "killed"
        self.losses += self.went_back

    def end(self) -> None:
        """End the process, and close its files."""
        self._stop()
        store = getattr(getattr(self.app and self.app.extensions["node"], "parts", None), "store", None)
        if store is not None:
            store.close()
        self.app = None

    def _stop(self) -> None:
        if self.process.is_alive:
            self._scheduler.kill(self.process)
            self._log_connections.end(self.process)
            self._http_connections.end(self.process)

    @property
    def parts(self) -> Any:
        return self.app.extensions["node"].parts

    @staticmethod
    def _refuse(_environ: Any, start: Any) -> list[bytes]:
        start("503 Starting", [])
        return [b"{}"]
