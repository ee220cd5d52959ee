"""The local runner: a log server and the nodes as child processes, kept running until the lab is stopped."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import urllib3

from lab.errors import LabError
from lab.local import disk, layout, log_server, logs, private, repair
from lab.local.layout import NAMESPACE, Options, Place
from lab.local.processes import Child
from lab.local.state import STATE, Claim, LabState, NodeState, this_process
from nodes.runtime.config import Role

if TYPE_CHECKING:
    from broker.registry import Registry

LOG_SERVER = f"{NAMESPACE}-redis"
_WATCH_SECONDS = 0.1
_SERVER_SECONDS = 30.0
_LOADING_SECONDS = 600.0  # of a file of several GB
_HEALTHY_SECONDS = 30.0
START_SECONDS_MAX = _LOADING_SECONDS + _HEALTHY_SECONDS
_STOP_SECONDS = 8.0
_FILES_SECONDS = 1.0
_HEARTBEAT_SECONDS = 2.5  # a replica that was stopped just now looks alive, but beats no more
_START_FAILURES_MAX = 3


class Lab:
    """A lab on this machine. ``with Lab(options) as lab:`` starts it, waits until all is healthy, and stops it.

    One thread starts, watches and stops the processes, because on Linux they end with the thread that started them.
    """

    def __init__(self, options: Options, say: Callable[[str], None] = lambda _: None) -> None:
        """``say`` is told in a sentence whatever happens to a process."""
        self.options = options
        self.data_dir = options.data_dir.absolute()
        self._password = secrets.token_hex(16)  # of the embedded log server
        self.redis_url = layout.redis_url(options, self._password)
        self._places = layout.places(options)
        self._say = say
        self._children: dict[str, Child] = {}
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._stop = threading.Event()
        self._all_started = threading.Event()  # or failed
        # Not Thread.join(): on Python 3.11 a join that Ctrl-C interrupted makes the next one return at once.
        self._ended = threading.Event()
        self._failure: str | None = None
        self._ready = False
        self._claim: Claim | None = None
        self._recording = threading.Lock()
        self._unwritten: str | None = None
        self._shortage: str | None = None
        self._looked_at_files = time.monotonic()

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
            if (shortage := disk.shortage(self.data_dir)) is not None:
                raise LabError(shortage)
            self._record()  # so that `lab down` finds it from here on
            if self._unwritten is not None:
                raise LabError(self._unwritten)
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
        """Return when the lab was stopped. Raises ``LabError`` when the supervisor has failed."""
        self._ended.wait()
        if self._failure is not None:
            raise LabError(self._failure)

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
            directory = private.subdirectory(self.data_dir / "log")
            self._add(LOG_SERVER, log_server.command(self.options, directory, self._password), dict(os.environ))
        private.subdirectory(self.data_dir / "replicas")
        for place in self._places:
            if place.role == "client":
                private.subdirectory(self._node_dir(place))
            self._add(place.node_id, [sys.executable, "-m", "nodes", place.role], self._environment(place))

    def _add(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        log = self.data_dir / "logs" / f"{name}.log"
        self._children[name] = Child(name, command, environment, log, time.monotonic)

    def _node_dir(self, place: Place) -> Path:
        return self.data_dir / ("replicas" if place.role == "replica" else "") / place.node_id

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
            "LAB_DATA_DIR": str(self._node_dir(place)),
            "LAB_DELAY_MS": str(place.delay_ms),
        }

    def _require_log_server(self) -> None:
        # Imported here: the supervisor of a lab with a log server of its own does without, and takes less memory.
        from broker.connection import connect
        from broker.errors import LogError
        from broker.history import History
        from broker.registry import Registry

        shown = layout.without_password(self.redis_url)
        try:
            client = connect(self.redis_url)
            log, registered = History(client, NAMESPACE), Registry(client, NAMESPACE)
            log.now_us()
            hazard = log.hazard()
            before = self._heartbeats(registered, log.now_us())
            deadline = time.monotonic() + _HEARTBEAT_SECONDS
            while before and time.monotonic() < deadline and not self._stop.wait(_WATCH_SECONDS):
                if taken := self._heartbeats(registered, log.now_us()) - before:
                    raise LabError(
                        f"--redis-url: another lab runs on this log server, with {min(taken)[0]}; "
                        "use another database of it (such as redis://HOST:PORT/1), or stop that lab"
                    )
        except ValueError as error:
            raise LabError(f"--redis-url {shown!r} is not the URL of a log server: {error}") from None
        except LogError as error:
            raise LabError(f"--redis-url {shown}: {error}") from None
        if hazard is not None:
            raise LabError(f"--redis-url: {hazard}")

    def _heartbeats(self, registered: Registry, now_us: int) -> set[tuple[str, int]]:
        """Of live replicas that have the id of one of this lab, which listens nowhere yet: the id and the last beat."""
        own = self.replica_urls
        return {
            (one.replica, one.seen_at_us) for one in registered.members() if one.replica in own and one.is_live(now_us)
        }

    def _await_health(self) -> None:
        self._all_started.wait()  # the log server has a bound of its own
        deadline = time.monotonic() + _HEALTHY_SECONDS
        pool = urllib3.PoolManager(retries=False, timeout=1.0)
        missing = list(self._places)
        while missing:
            if self._failure is not None:
                raise LabError(self._failure)
            if time.monotonic() > deadline:
                late = self._children[missing[0].node_id]
                raise LabError(f"{late.name} was not healthy after {_HEALTHY_SECONDS:g} s: {late.last_words()}")
            for place in [place for place in missing if _is_healthy(pool, place.url)]:
                child = self._children[place.node_id]
                if child.listens_on(place.port):
                    missing.remove(place)
                elif child.pid is not None:
                    raise LabError(f"port {place.port} is in use: another process answers there; {layout.OTHER_PORTS}")
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
        except Exception as error:  # noqa: BLE001 - whatever it was, who waits for the lab is told
            self._failure = f"the supervisor failed: {type(error).__name__}: {error}"
            with suppress(OSError, ValueError):
                traceback.print_exc()
        finally:
            self._all_started.set()
            self._ended.set()

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            for name, child in self._children.items():
                child.start()
                if name == LOG_SERVER:
                    self._await_log_server(child)
            self._record()
            self._all_started.set()
            yield
        finally:
            self._stop_children()

    def _await_log_server(self, child: Child) -> None:
        address = ("127.0.0.1", layout.log_server_port(self.options))
        began = time.monotonic()
        while not self._stop.is_set():
            if child.pid is None:
                if (repaired := self._repair_log(child)) is None:
                    raise LabError(f"the log server does not start: {self._reason(child)}")
                self._tell(repaired)
                child.start()
                began = time.monotonic()
            answer = _ping(address, self._password)
            if answer == "+PONG" and child.listens_on(address[1]):
                return
            bound = _LOADING_SECONDS if answer.startswith("-LOADING") else _SERVER_SECONDS
            if time.monotonic() - began > bound:
                raise LabError(f"the log server is not ready after {bound:g} s: {answer}")
            time.sleep(0.005)

    def _watch(self) -> None:
        happened = [sentence for child in self._children.values() if (sentence := child.watch()) is not None]
        if happened and (log_server := self._children.get(LOG_SERVER)) and (done := self._repair_log(log_server)):
            happened.append(done)
        for sentence in happened:
            self._tell(sentence)
        if not self._ready:
            for child in self._children.values():
                if child.restarts >= _START_FAILURES_MAX:
                    raise LabError(f"{child.name} does not start: {child.last_words()}")
        self._watch_files()
        if happened or self._unwritten is not None:
            self._record()

    def _repair_log(self, child: Child) -> str | None:
        """What was done to the file of a log server that has ended because of it."""
        if child.pid is not None or repair.DAMAGED not in child.last_words():
            return None
        return repair.repair(log_server.binary_path(self.options.log_server), self.data_dir / "log")

    def _reason(self, child: Child) -> str:
        words = child.last_words()
        if repair.DAMAGED not in words:
            return words
        return (
            f"its file is damaged where it cannot be repaired; replace {self.data_dir / 'log'} by a copy of it, "
            "or move it away to start with an empty log"
        )

    def _watch_files(self) -> None:
        if time.monotonic() - self._looked_at_files < _FILES_SECONDS:
            return
        self._looked_at_files = time.monotonic()
        if self._claim is not None and not self._claim.is_intact():
            raise LabError(f"{self.data_dir} was removed or replaced while the lab ran, so that the lab stops")
        for log in (self.data_dir / "logs").glob("*.log"):
            logs.limit(log)
        before, self._shortage = self._shortage, disk.shortage(self.data_dir)
        if (before is None) != (self._shortage is None):
            self._tell(self._shortage or "the disk has room again")

    def _tell(self, sentence: str) -> None:
        # The log is on the disk that is full, nobody reads the pipe any more, the terminal has no such character.
        with suppress(OSError, ValueError):
            self._say(sentence)

    def _record(self) -> None:
        if self._claim is not None:
            with self._recording:  # both threads do
                self._write(self._claim)

    def _write(self, claim: Claim) -> None:
        listed: list[tuple[str, str, str]] = [(place.node_id, place.role, place.url) for place in self._places]
        if self.options.redis_url is None:
            listed.append((LOG_SERVER, "log", layout.without_password(self.redis_url)))
        pids, children = self.pids, self._children  # without children while the lab begins
        nodes = [
            NodeState(name, role, url, pids.get(name), children[name].restarts if name in children else 0)
            for name, role, url in listed
        ]
        before, self._unwritten = self._unwritten, None
        try:
            claim.write(
                LabState(*this_process(), self._ready, NAMESPACE, self.options.base_port, self.redis_url, nodes)
            )
        except OSError as error:
            self._unwritten = f"{self.data_dir / STATE} cannot be written: {error.strerror}"
            if before is None and self._ready:
                self._tell(f"{self._unwritten}; the lab goes on")

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


def _ping(address: tuple[str, int], password: str) -> str:
    """What a log server answers to PING, in its protocol's words: -LOADING while it reads its file."""
    try:
        with socket.create_connection(address, timeout=1.0) as connection, connection.makefile("rb") as answers:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answers.readline(200)
            return answers.readline(200).decode(errors="replace").strip()
    except OSError as error:
        return str(error)
