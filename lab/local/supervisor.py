"""The local runner: a log server and the nodes as child processes, kept running until the lab is stopped."""

import os
import secrets
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, Self

import urllib3

from broker.address import parse
from lab.errors import LabError
from lab.local import existing, files, layout, log_server, logs
from lab.local.layout import NAMESPACE, Options, Place
from lab.local.log_server import LogProcess
from lab.local.processes import Child
from lab.local.state import STATE, Claim, LabState, NodeState, this_process

_WATCH_SECONDS = 0.1
_SERVER_SECONDS = 30.0
_LOADING_SECONDS = 600.0  # of a file of several GB
_HEALTHY_SECONDS = 30.0
START_SECONDS_MAX = _LOADING_SECONDS + _HEALTHY_SECONDS
_STOP_SECONDS = 8.0
_FILES_SECONDS = 1.0
_START_FAILURES_MAX = 3
_TEMPORARY_TRIES = 3
Status = Callable[[str], AbstractContextManager[Any]]  # shows the current activity, like rich's Console.status


class Lab:
    """A lab on this machine. ``with Lab(options) as lab:`` starts it, waits until it is healthy, and stops it.

    One thread starts, watches and stops the processes, because on Linux they end with the thread that started them.
    """

    def __init__(self, options: Options, on_event: Callable[[str], None] = lambda _: None) -> None:
        """``on_event`` receives a message about each event of a process or disk."""
        self.options = options
        self.data_dir = options.data_dir.absolute()
        self._password = secrets.token_hex(16)  # of the log servers that it starts
        self.redis_url = layout.redis_url(options, self._password)
        self._namespace = NAMESPACE
        self._places, self._log_places = layout.places(options), layout.log_places(options)
        self._log_processes: list[LogProcess] = []
        urls = {place.role: place.url for place in self._places}
        self.primary_url, self.client_url, self.worker_url = urls["primary"], urls["client"], urls["worker"]
        self.replica_urls = {place.node_id: place.url for place in self._places if place.role == "replica"}
        self._on_event = on_event
        self._children: dict[str, Child] = {}
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._stop = threading.Event()
        self._all_started = threading.Event()  # or failed
        # Not Thread.join(): on Python 3.11 a join interrupted by Ctrl-C makes the next one return immediately.
        self._ended = threading.Event()
        self._failure: str | None = None
        self._ready = False
        self._claim: Claim | None = None
        self._recording = threading.Lock()
        self._unwritten: str | None = None
        self._shortage: str | None = None
        self._files_checked_at = time.monotonic()

    @classmethod
    @contextmanager
    def temporary(
        cls, *, preferred_ports: Iterable[int] = (), status: Status = nullcontext, **options: Any
    ) -> Iterator[Self]:
        """Run a lab in a temporary directory on free ports; stop and remove it at the end. Raises ``LabError``."""
        with tempfile.TemporaryDirectory(prefix="lab-") as directory:
            with status("Starting a lab"):
                lab = cls._on_free_ports(Path(directory), preferred_ports, options)
            try:
                yield lab
            finally:
                with status("Stopping the lab"):
                    lab.stop()

    @classmethod
    def _on_free_ports(
        cls, directory: Path, preferred: Iterable[int], options: dict[str, Any], tries: int = _TEMPORARY_TRIES
    ) -> Self:
        port = layout.free_base_port(SystemRandom(), preferred=preferred)
        lab = cls(Options(directory / str(tries), port, **options))
        try:
            lab.start()
        except LabError:  # another process may have taken a port in the meantime
            if tries == 1 or not layout.taken_ports(lab.options):
                raise
            return cls._on_free_ports(directory, preferred, options, tries - 1)
        return lab

    @property
    def pids(self) -> dict[str, int]:
        """The process IDs of the running processes, by id."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    def start(self) -> None:
        """Start everything and return once it is healthy. Raises ``LabError``, leaving nothing running."""
        self._claim = Claim(self.data_dir)
        try:
            if (shortage := files.shortage(self.data_dir)) is not None:
                raise LabError(shortage)
            if self.options.redis_url is not None:
                existing.parsed(self.options.redis_url)
            self._record()  # so that `lab down` finds it from now on
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
        self._stop.set()
        if self._thread.ident is not None:
            self._ended.wait()
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def wait(self) -> None:
        """Return when the lab was stopped. Raises ``LabError`` if the supervisor has failed."""
        self._ended.wait()
        if self._failure is not None:
            raise LabError(self._failure)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- starting -----------------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        if self.options.redis_url is not None:
            existing.require_usable(self.redis_url, self.replica_urls, self._stop)
            self._namespace = parse(self.redis_url).namespace(NAMESPACE)
        self._log_processes = log_server.prepare(self.options, self.data_dir, self._password)
        for process in self._log_processes:
            self._add(process.place.name, process.command, dict(os.environ))
        replicas = files.subdirectory(self.data_dir / "replicas")
        for place in self._places:
            directory = (replicas if place.role == "replica" else self.data_dir) / place.node_id
            if place.role == "client":
                files.subdirectory(directory)
            command = [sys.executable, "-m", "nodes", place.role]
            self._add(place.node_id, command, self._environment(place, directory))

    def _add(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        log = self.data_dir / "logs" / f"{name}.log"
        pauses = self.options.restart_pauses_seconds
        self._children[name] = Child(name, command, environment, log, time.monotonic, pauses)

    def _environment(self, place: Place, directory: Path) -> dict[str, str]:
        return {
            **os.environ,
            **self.options.environment,
            "LAB_NODE_ID": place.node_id,
            "LAB_NAMESPACE": NAMESPACE,
            "LAB_HOST": self.options.host,
            "LAB_PORT": str(place.port),
            "LAB_ADVERTISE_URL": place.url,
            "LAB_REDIS_URL": self.redis_url,
            "LAB_PRIMARY_URL": self.primary_url,
            "LAB_CLIENT_URL": self.client_url,
            "LAB_DATA_DIR": str(directory),
            "LAB_DELAY_MS": str(place.delay_ms),
        }

    def _await_health(self) -> None:
        self._all_started.wait()  # the log servers have a separate bound
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
            try:
                for role in ("log", "sentinel"):  # which would take a master for dead that takes long to start
                    self._start_log([process for process in self._log_processes if process.place.role == role])
                for place in self._places:
                    self._children[place.node_id].start()
                self._record()
                self._all_started.set()
                while not self._stop.wait(_WATCH_SECONDS):
                    self._watch()
            finally:
                self._stop_children()
        except (OSError, LabError) as error:
            self._failure = str(error)
        except Exception as error:  # noqa: BLE001 - reported by wait()
            self._failure = f"the supervisor failed: {type(error).__name__}: {error}"
            with suppress(OSError, ValueError):
                traceback.print_exc()
        finally:
            self._all_started.set()
            self._ended.set()

    def _start_log(self, processes: list[LogProcess]) -> None:
        children = [self._children[process.place.name] for process in processes]
        for child in children:
            child.start()
        for process, child in zip(processes, children, strict=True):
            self._await_ready(process, child)

    def _await_ready(self, process: LogProcess, child: Child) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            if child.pid is None:
                if (repaired := self._repair(process, child)) is None:
                    why = child.last_words()
                    if log_server.DAMAGED in why:
                        instead = "start with an empty log" if len(self._log_processes) == 1 else "copy another one"
                        way = f"replace {process.directory} with a backup, or move it away to {instead}"
                        why = f"its file is damaged beyond repair; {way}"
                    raise LabError(f"{child.name} does not start: {why}")
                self._report(repaired)
                child.start()
                began = time.monotonic()
            answer = process.answer()
            if process.is_ready(answer) and child.listens_on(process.place.port):
                return
            bound = _LOADING_SECONDS if answer.startswith("-LOADING") else _SERVER_SECONDS
            if time.monotonic() - began > bound:
                raise LabError(f"{child.name} is not ready after {bound:g} s: {answer}")
            time.sleep(0.005)

    def _watch(self) -> None:
        happened = [sentence for child in self._children.values() if (sentence := child.watch()) is not None]
        if happened:
            repaired = (self._repair(process, self._children[process.place.name]) for process in self._log_processes)
            happened += filter(None, repaired)
        for sentence in happened:
            self._report(sentence)
        for child in [] if self._ready else self._children.values():
            if child.restarts >= _START_FAILURES_MAX:
                raise LabError(f"{child.name} does not start: {child.last_words()}")
        if time.monotonic() - self._files_checked_at >= _FILES_SECONDS:
            self._check_files()
        if happened or self._unwritten is not None:
            self._record()

    def _repair(self, process: LogProcess, child: Child) -> str | None:
        if child.pid is not None or log_server.DAMAGED not in child.last_words():
            return None
        return log_server.repair(process.command[0], process.directory)

    def _check_files(self) -> None:
        self._files_checked_at = time.monotonic()
        if self._claim is not None and not self._claim.is_intact():
            raise LabError(f"{self.data_dir} was removed or replaced while the lab ran; the lab stops")
        for log in (self.data_dir / "logs").glob("*.log"):
            logs.limit(log)
        before, self._shortage = self._shortage, files.shortage(self.data_dir)
        if (before is None) != (self._shortage is None):
            self._report(self._shortage or "the disk has free space again")

    def _report(self, sentence: str) -> None:
        # Possible causes: a full disk, a closed pipe, or a terminal unable to show a character.
        with suppress(OSError, ValueError):
            self._on_event(sentence)

    def _record(self) -> None:
        with self._recording:  # both threads record
            before, self._unwritten = self._unwritten, None
            try:
                if self._claim is not None:
                    self._claim.write(self._state())
            except OSError as error:
                self._unwritten = f"{self.data_dir / STATE} cannot be written: {error.strerror}"
                if before is None and self._ready:
                    self._report(f"{self._unwritten}; the lab keeps running")

    def _state(self) -> LabState:
        listed: list[tuple[str, str, str]] = [(place.node_id, place.role, place.url) for place in self._places]
        listed += [(place.name, place.role, place.url) for place in self._log_places]
        pids, children = self.pids, self._children  # no children yet when the lab starts
        nodes = [
            NodeState(name, role, url, pids.get(name), children[name].restarts if name in children else 0)
            for name, role, url in listed
        ]
        return LabState(*this_process(), self._ready, self._namespace, self.options.base_port, self.redis_url, nodes)

    def _stop_children(self) -> None:
        log_servers = {place.name for place in self._log_places}
        nodes = [child for name, child in self._children.items() if name not in log_servers]
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
