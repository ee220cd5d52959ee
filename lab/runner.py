"""The local runner: a log server and the nodes as child processes, kept running until the lab is stopped."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import urllib3

from lab import layout, repair, server
from lab.child import Child
from lab.errors import LabError
from lab.layout import NAMESPACE, Options, Place
from lab.state import Claim, LabState, NodeState
from nodes.config import Role

LOG_SERVER = f"{NAMESPACE}-redis"
_WATCH_SECONDS = 0.1
_SERVER_SECONDS = 30.0
_HEALTHY_SECONDS = 30.0
_STOP_SECONDS = 8.0
_START_FAILURES_MAX = 3


class Lab:
    """A lab on this machine. ``with Lab(options) as lab:`` starts it, waits until all is healthy, and stops it.

    One thread starts, watches and stops the processes, because on Linux they end with the thread that started them.
    """

    def __init__(self, options: Options, say: Callable[[str], None] = lambda _: None) -> None:
        """``say`` is told in a sentence whatever happens to a process."""
        self.options = options
        self.data_dir = options.data_dir.absolute()
        self.redis_url = layout.redis_url(options)
        self._places = layout.places(options)
        self._say = say
        self._children: dict[str, Child] = {}
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._stop = threading.Event()
        # Not Thread.join(): on Python 3.11 a join that Ctrl-C interrupted makes the next one return at once.
        self._ended = threading.Event()
        self._failure: str | None = None
        self._ready = False
        self._claim: Claim | None = None

    # -- for those who use it -----------------------------------------------------------------------------------------

    @property
    def primary_url(self) -> str:
        """Where the primary listens."""
        return self._places[0].url

    @property
    def client_url(self) -> str:
        """Where the client listens."""
        return self._url_of("client")

    @property
    def worker_url(self) -> str:
        """Where the worker listens."""
        return self._url_of("worker")

    @property
    def replica_urls(self) -> dict[str, str]:
        """Where the replicas listen, by id."""
        return {place.node_id: place.url for place in self._places if place.role == "replica"}

    @property
    def pids(self) -> dict[str, int]:
        """The process IDs of what runs now, by id; the log server is ``lab14-redis``."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    def start(self) -> None:
        """Start everything and return when all is healthy. Raises ``LabError``; then nothing is left running."""
        self._claim = Claim(self.data_dir)
        try:
            layout.require_free_ports(self.options)
            self._prepare()
            self._thread.start()
            self._await_health()
        except BaseException:
            self.stop()
            raise
        self._ready = True
        self._record()

    def stop(self) -> None:
        """Stop everything, nodes first, and return when it has ended."""
        self._stop.set()
        if self._thread.ident is not None:
            self._ended.wait()
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def wait(self) -> None:
        """Return when the supervisor has ended, which it does by itself only when it fails."""
        self._ended.wait()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    # -- starting -----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if self.options.redis_url is not None:
            self._require_log_server()
        else:
            directory = self.data_dir / "log"
            directory.mkdir(exist_ok=True)
            self._add(LOG_SERVER, server.command(self.options, directory), dict(os.environ))
        for place in self._places:
            module = ["lab.experiments"] if place.role == "worker" else ["nodes", place.role]
            self._add(place.node_id, [sys.executable, "-m", *module], self._environment(place))

    def _add(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        log = self.data_dir / "logs" / f"{name}.log"
        self._children[name] = Child(name, command, environment, log, time.monotonic)

    def _url_of(self, role: Role) -> str:
        return next(place.url for place in self._places if place.role == role)

    def _environment(self, place: Place) -> dict[str, str]:
        return {
            **os.environ,
            "LAB_NODE_ID": place.node_id,
            "LAB_NAMESPACE": NAMESPACE,
            "LAB_HOST": self.options.host,
            "LAB_PORT": str(place.port),
            "LAB_ADVERTISE_URL": place.url,
            "LAB_REDIS_URL": self.redis_url,
            "LAB_PRIMARY_URL": self.primary_url,
            "LAB_CLIENT_URL": self.client_url,
            "LAB_DATA_DIR": str(self.data_dir / ("replicas" if place.role == "replica" else "") / place.node_id),
            "LAB_DELAY_MS": str(place.delay_ms),
        }

    def _require_log_server(self) -> None:
        # Imported here: the supervisor of a lab with a log server of its own does without, and takes less memory.
        from broker.connection import connect
        from broker.errors import LogError
        from broker.log import ReplicationLog

        try:
            ReplicationLog(connect(self.redis_url), NAMESPACE).now_us()
        except ValueError as error:
            raise LabError(f"--redis-url {self.redis_url!r} is not the URL of a log server: {error}") from None
        except LogError as error:
            raise LabError(f"--redis-url {self.redis_url}: {error}") from None

    def _await_health(self) -> None:
        deadline = time.monotonic() + _HEALTHY_SECONDS
        pool = urllib3.PoolManager(retries=False, timeout=1.0)
        missing = list(self._places)
        while missing:
            if self._failure is not None:
                raise LabError(self._failure)
            if time.monotonic() > deadline:
                late = self._children[missing[0].node_id]
                raise LabError(f"{late.name} was not healthy after {_HEALTHY_SECONDS:g} s: {late.last_words()}")
            missing = [place for place in missing if not _is_healthy(pool, place.url)]
            if missing:
                time.sleep(0.03)

    # -- the supervisor's thread --------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        try:
            with self._running():
                while not self._stop.wait(_WATCH_SECONDS):
                    self._watch()
        except (OSError, LabError) as error:
            self._failure = str(error)
        finally:
            self._ended.set()

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            for name, child in self._children.items():
                child.start()
                if name == LOG_SERVER:
                    self._await_log_server(child)
            self._record()
            yield
        finally:
            self._stop_children()

    def _await_log_server(self, child: Child) -> None:
        address = ("127.0.0.1", layout.log_server_port(self.options))
        deadline = time.monotonic() + _SERVER_SECONDS
        while not self._stop.is_set():
            answer = _ping(address)
            if answer == "+PONG":
                return
            if child.pid is None:
                if (repaired := self._repair_log(child)) is None:
                    raise LabError(f"the log server does not start: {self._reason(child)}")
                self._say(repaired)
                child.start()
            if time.monotonic() > deadline:
                raise LabError(f"the log server is not ready: {answer}")
            time.sleep(0.005)

    def _watch(self) -> None:
        happened = [sentence for child in self._children.values() if (sentence := child.watch()) is not None]
        if happened and (log_server := self._children.get(LOG_SERVER)) and (done := self._repair_log(log_server)):
            happened.append(done)
        for sentence in happened:
            self._say(sentence)
        if not self._ready:
            for child in self._children.values():
                if child.restarts >= _START_FAILURES_MAX:
                    raise LabError(f"{child.name} does not start: {child.last_words()}")
        if happened:
            self._record()

    def _repair_log(self, child: Child) -> str | None:
        """What was done to the file of a log server that has ended because of it."""
        if child.pid is not None or repair.DAMAGED not in child.last_words():
            return None
        return repair.repair(server.binary_path(self.options.log_server), self.data_dir / "log")

    def _reason(self, child: Child) -> str:
        words = child.last_words()
        if repair.DAMAGED not in words:
            return words
        return (
            f"its file is damaged where it cannot be repaired; replace {self.data_dir / 'log'} by a copy of it, "
            "or move it away to start with an empty log"
        )

    def _record(self) -> None:
        if self._claim is None:
            return
        nodes = [
            NodeState(place.node_id, place.role, place.url, child.pid, child.restarts)
            for place in self._places
            if (child := self._children[place.node_id])
        ]
        if LOG_SERVER in self._children:
            child = self._children[LOG_SERVER]
            nodes.append(NodeState(LOG_SERVER, "log", self.redis_url, child.pid, child.restarts))
        state = LabState(os.getpid(), self._ready, NAMESPACE, self.options.base_port, self.redis_url, nodes)
        self._claim.write(state)

    def _stop_children(self) -> None:
        nodes = [child for name, child in self._children.items() if name != LOG_SERVER]
        for group in (nodes, [child for child in self._children.values() if child not in nodes]):
            for child in group:
                child.terminate()
            deadline = time.monotonic() + _STOP_SECONDS
            for child in group:
                child.wait(max(0.0, deadline - time.monotonic()))


def _is_healthy(pool: urllib3.PoolManager, url: str) -> bool:
    try:
        return pool.request("GET", f"{url}/health").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def log_path(data_dir: Path, name: str) -> Path:
    """The log file of a process of the lab."""
    return data_dir / "logs" / f"{name}.log"


def _ping(address: tuple[str, int]) -> str:
    """What a log server answers to PING, in its protocol's words: -LOADING while it reads its file."""
    try:
        with socket.create_connection(address, timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(200).decode(errors="replace").strip()
    except OSError as error:
        return str(error)
