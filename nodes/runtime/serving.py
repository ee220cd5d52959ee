"""Running a node in gunicorn: an app with its node and tracing in ``app.extensions``, in a worker with threads."""

import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.errors import AppImportError
from gunicorn.workers import gthread

from nodes.runtime.background import Background, share_one_core
from nodes.runtime.config import NodeConfig
from nodes.runtime.connections import Worker, refusal
from nodes.runtime.store import StoreError

if TYPE_CHECKING:
    from broker.connection import Link

# The master process only waits; the node's modules are imported in its worker.
Config = TypeVar("Config", bound=NodeConfig)
_logger = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_LAST_ANSWER_SECONDS = 0.05
_FOLLOW_SECONDS = 1.0  # until connections to a former log server are broken
# For requests on kept connections of a stopping node. Gunicorn's 2 s would dominate the time a lab takes to stop.
gthread.STOP_KEEPALIVE_LINGER = 0.3
_FILES_PER_REQUEST = 6  # its caller, the log server or the store, and the nodes it calls
_OWN_FILES = 96  # store, log server, feed, listener, and the requests of the reserved threads
_IDLE = 1000  # connections that are idle or whose request is still arriving
_REQUESTS_MIN = 4


class Room(NamedTuple):
    """The maximum numbers of requests in progress and of open connections, with a limit of ``files``."""

    requests: int
    connections: int
    files: int


class Service(BaseApplication):  # type: ignore[misc]
    """One node. ``create_app`` is called in the worker process, with as many threads as the file limit allows."""

    def __init__(self, config: Config, create_app: Callable[[Config], Any]) -> None:
        self._room, self._wanted = make_room(config.threads), config.threads
        self._config = replace(config, threads=self._room.requests)
        self._create_app: Callable[[Any], Any] = create_app
        super().__init__()

    def load_config(self) -> None:
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        settings: dict[str, Any] = {
            "bind": f"{host}:{self._config.port}",
            "proc_name": self._config.node_id,
            "worker_class": Worker,
            "workers": 1,  # with the node's background threads, gate and metrics
            "threads": self._config.threads,
            "worker_connections": self._room.connections,
            "keepalive": 75,
            "graceful_timeout": 5,
            "loglevel": "warning",
            # By default all gunicorns of a user share the control socket, and a second one would take it over.
            "control_socket_disable": True,
            # There is no proxy: a header must neither change the path nor conflict with another about the scheme.
            "forwarded_allow_ips": "",
            "post_fork": _end_with_master,
            "post_worker_init": _start,
            "worker_exit": _stopped,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)
        util.write_error = _refuse

    def load(self) -> Any:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LineFormatter())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        if self._room.requests < self._wanted:
            limits = f"only {self._room.files} files can be open, so at most {self._room.requests} requests"
            _logger.warning("%s can be in progress, not %d; raise it with ulimit -n", limits, self._wanted)
        share_one_core(self._config.port)  # the nodes of a lab have successive ports
        gc.disable()  # importing and building the app leaves hardly any garbage
        try:
            app = self._create_app(self._config)
        except StoreError as error:
            raise AppImportError(str(error)) from None  # gunicorn prints it without a stack trace
        # Otherwise garbage collection, which scans the app and all waiters, takes a third of the time of waking them.
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)
        gc.enable()
        return app


def end_at_once() -> None:
    """Kill the node's processes as ``kill -9`` would, after a short pause so the caller still gets a response."""

    def end() -> None:
        os.kill(os.getppid(), signal.SIGKILL)  # gunicorn's master would start another worker
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Timer(_LAST_ANSWER_SECONDS, end).start()


def _end_with_master(_server: Any, worker: Any) -> None:
    """End the worker with its master; it would otherwise hold port and store for seconds (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != worker.ppid:  # the master died before prctl took effect
            os._exit(1)


def _refuse(connection: socket.socket, status: int, reason: str, detail: str) -> None:
    """Answer requests that gunicorn cannot parse with problem details instead of its HTML page."""
    util.write_nonblock(connection, refusal(status, f"http-{status}", reason, f"{detail or reason}."))


def _start(worker: Any) -> None:
    stop = begin(worker.wsgi)
    graceful = signal.getsignal(signal.SIGTERM)

    def terminate(number: int, frame: FrameType | None) -> None:
        # Gunicorn waits for all requests, so wake the waiting ones: in a thread, because a handler must not take locks.
        threading.Thread(target=stop, name="stop").start()
        if callable(graceful):
            graceful(number, frame)

    signal.signal(signal.SIGTERM, terminate)


def begin(app: Any) -> Callable[[], None]:
    """Start the threads of an app's node; return what stops them."""
    node, tracing, link = app.extensions["node"], app.extensions["tracing"], app.extensions.get("link")
    following = Background("log-server", lambda: _follow(link, following))
    if link is not None and link.address.moves:
        following.start()
    node.start()

    def stop() -> None:
        following.stop()
        node.stop()
        tracing.flush()  # while gunicorn lingers, to avoid delaying the exit

    return stop


def _follow(link: "Link", thread: Background) -> None:
    link.follow()
    thread.pause(_FOLLOW_SECONDS)


def _stopped(_server: Any, worker: Any) -> None:
    if hasattr(worker, "wsgi"):  # the app could be created
        worker.wsgi.extensions["node"].stop()


def _allows(limit: int, files: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= files


def make_room(requests: int) -> Room:
    """Raise the limit of open files for this many requests, as far as allowed, and return the result."""
    wanted = _OWN_FILES + _IDLE + requests * _FILES_PER_REQUEST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _allows(soft, wanted):
        soft = wanted if _allows(hard, wanted) else hard
        with suppress(OSError, ValueError):  # the system can allow less than the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return room_for(requests, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def room_for(requests: int, files: int) -> Room:
    if _allows(files, _OWN_FILES + _IDLE + requests * _FILES_PER_REQUEST):
        return Room(requests, requests + _IDLE, files)
    idle = files // 4
    found = min(requests, max(_REQUESTS_MIN, (files - _OWN_FILES - idle) // _FILES_PER_REQUEST))
    return Room(found, found + idle, files)


class LineFormatter(logging.Formatter):
    """Printable log lines with indented stack traces: requests can neither forge lines nor control a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        return _printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        return "\n".join(f"  {_printable(line)}" for line in super().formatException(ei).split("\n"))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
