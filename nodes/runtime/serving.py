"""How gunicorn runs a node: one worker with threads.

One worker, because it holds the node's background threads, its gate and its metrics. An app made for this has a node
in ``app.extensions["node"]``, with ``start()`` and ``stop()``, and its tracing in ``app.extensions["tracing"]``.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.errors import AppImportError
from gunicorn.workers import gthread

from nodes.runtime import cores, files
from nodes.runtime.config import NodeConfig
from nodes.runtime.connections import Worker, refusal
from nodes.runtime.logs import LineFormatter

if TYPE_CHECKING:  # the master process only waits: what a node is made of is imported in its worker
    from flask import Flask

    from nodes.runtime.tracing import Tracing

Config = TypeVar("Config", bound=NodeConfig)
_logger = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_LAST_ANSWER_SECONDS = 0.05
# How long a stopping node answers what arrives on connections that are kept open. Gunicorn's 2 s have no setting, and
# would be most of the time that a lab takes to stop.
gthread.STOP_KEEPALIVE_LINGER = 0.3


class Node(Protocol):
    """What runs behind a node's endpoints."""

    def start(self) -> None:
        """Start the background threads."""

    def stop(self) -> None:
        """Wake everybody who waits and end the background threads."""


class Service(BaseApplication):  # type: ignore[misc]
    """One node as a gunicorn service.

    ``create_app`` is called in the worker process, with the threads that there are open files for.
    """

    def __init__(self, config: Config, create_app: Callable[[Config], Flask]) -> None:
        self._room = files.make_room(config.threads)
        self._wanted = config.threads
        self._config = replace(config, threads=self._room.requests)
        self._create_app: Callable[[Any], Flask] = create_app
        super().__init__()

    def load_config(self) -> None:
        """Gunicorn's settings."""
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        settings: dict[str, Any] = {
            "bind": f"{host}:{self._config.port}",
            "proc_name": self._config.node_id,
            "worker_class": Worker,
            "workers": 1,
            "threads": self._config.threads,
            "worker_connections": self._room.connections,
            "keepalive": 75,
            "graceful_timeout": 5,
            "loglevel": "warning",
            # A second gunicorn of the same user would steal the control socket, which all share by default.
            "control_socket_disable": True,
            # No proxy is in front: a header may neither move the path nor contradict another about the scheme.
            "forwarded_allow_ips": "",
            "post_fork": _end_with_master,
            "post_worker_init": _start,
            "worker_exit": _stopped,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)
        util.write_error = _refuse

    def load(self) -> Flask:
        """The WSGI app."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LineFormatter())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        from nodes.runtime.store import StoreError

        if self._room.requests < self._wanted:
            _logger.warning(
                "only %d files may be open: at most %d requests are in progress, not %d; ulimit -n raises it",
                *(self._room.files, self._room.requests, self._wanted),
            )
        cores.share_one(self._config.port)  # the nodes of a lab have successive ports
        try:
            app = self._create_app(self._config)
        except StoreError as error:
            raise AppImportError(str(error)) from None  # which gunicorn shows as the sentence that it is
        # What the app is made of lives as long as the process, and hundreds of waiting requests hold many objects that
        # are no garbage: collections that look at either cost a third of the time in which the waiting are woken.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        return app


def end_at_once() -> None:
    """End this node as ``kill -9`` of all its processes would, a moment later: what called this is still answered."""

    def end() -> None:
        os.kill(os.getppid(), signal.SIGKILL)  # gunicorn's master, which would only start another worker
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Timer(_LAST_ANSWER_SECONDS, end).start()


def _end_with_master(_server: Any, worker: Any) -> None:
    """A worker without its master would hold port and store for seconds, so it goes with it (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != worker.ppid:  # the master died before the kernel was told
            os._exit(1)


def _refuse(connection: socket.socket, status: int, reason: str, detail: str) -> None:
    """Answer what gunicorn cannot read as a request with problem details, where it would send a page."""
    util.write_nonblock(connection, refusal(status, f"http-{status}", reason, f"{detail or reason}."))


def _start(worker: Any) -> None:
    node: Node = worker.wsgi.extensions["node"]
    tracing: Tracing = worker.wsgi.extensions["tracing"]
    node.start()
    graceful = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        node.stop()
        tracing.flush()  # while gunicorn lingers, so that it makes the end no later

    def terminate(number: int, frame: FrameType | None) -> None:
        # Gunicorn waits for requests in progress, so the ones that wait for a position have to be woken. In a thread,
        # because a signal handler must not take locks.
        threading.Thread(target=stop, name="stop").start()
        if callable(graceful):
            graceful(number, frame)

    signal.signal(signal.SIGTERM, terminate)


def _stopped(_server: Any, worker: Any) -> None:
    wsgi: Flask | None = getattr(worker, "wsgi", None)  # missing where the app could not be made
    if wsgi is not None:
        wsgi.extensions["node"].stop()
