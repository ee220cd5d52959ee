"""MariaDB with two replicas: one receives everything 200 ms late, through a proxy, the other immediately."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pymysql

from tests.support.databases.processes import Process, directory, run
from tests.support.delaying_proxy import DelayingProxy
from tests.support.ports import base_port
from tests.support.until import until

DELAY_SECONDS = 0.2
PASSWORD = "a-pässword-of-tests"
_SERVER = "/usr/sbin/mariadbd"
_OPTIONS = (
    "--bind-address=127.0.0.1",
    "--log-bin=bin",
    "--binlog-format=ROW",
    "--log-slave-updates",
    "--gtid-strict-mode=ON",
    "--skip-name-resolve",
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=32M",
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
    "--sync-binlog=0",
    "--performance-schema=OFF",
)
_INSTALL = ("--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=4M")
_USERS = (
    "CREATE USER repl IDENTIFIED BY 'repl'",
    "GRANT REPLICATION SLAVE ON *.* TO repl",
    "CREATE USER prober",
    "GRANT SELECT, INSERT, UPDATE, CREATE, DROP ON lab_probe.* TO prober",
    "CREATE USER reader",
    "GRANT SELECT ON lab_probe.* TO reader",
    "CREATE USER powerless",
    f"CREATE USER guarded IDENTIFIED BY '{PASSWORD}'",
)
_PROBES = "SELECT id FROM information_schema.processlist WHERE user IN ('prober', 'reader', 'powerless', 'guarded')"
_FOLLOW = (
    "CHANGE MASTER TO master_host='127.0.0.1', master_port=%s, master_user='repl', master_password='repl', "
    "master_use_gtid=slave_pos, master_connect_retry=1"
)


class Server:
    """One MariaDB server on a loopback port."""

    def __init__(self, data: Path, port: int, number: int) -> None:
        self.port = port
        places = (f"--datadir={data}", f"--socket={data}.sock", f"--pid-file={data}.pid", f"--server-id={number}")
        command = [_SERVER, "--no-defaults", *places, f"--port={port}", *_OPTIONS]
        self._process = Process(command, data.with_suffix(".log"))
        self._administrator: pymysql.Connection[Any] | None = None

    def address(self, user: str = "prober") -> str:
        return f"mysql://{user}@127.0.0.1:{self.port}/"

    def connect(self, user: str = "root", **options: Any) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        return pymysql.connect(host="127.0.0.1", port=self.port, user=user, connect_timeout=5, **options)

    def sql(self, *statements: str, values: tuple[Any, ...] = ()) -> tuple[tuple[Any, ...], ...]:
        """Execute statements as the superuser; return the rows of the last."""
        if self._administrator is None:
            self._administrator = self.connect(autocommit=True)
        with self._administrator.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement, values or None)
            return cursor.fetchall()

    def launch(self) -> None:
        self._process.launch()

    def wait(self) -> None:
        self._process.wait_until(self._answers)

    def stop(self) -> None:
        if self._administrator is not None:
            self._administrator.close()
        self._process.stop()

    def _answers(self) -> bool:
        try:
            return bool(self.sql("SELECT 1"))
        except pymysql.OperationalError:
            return False

    def probes(self) -> list[int]:
        """The server's ids of connections of a probe."""
        return [number for (number,) in self.sql(_PROBES)]

    def wait_until_left(self) -> None:
        """Fail the test unless every connection of a probe is closed."""
        until(lambda: not self.probes())

    def follow(self, port: int) -> None:
        self.sql(_FOLLOW, values=(port,))
        self.sql("START SLAVE", "SET GLOBAL read_only = 1")

    def position(self) -> str:
        ((found,),) = self.sql("SELECT @@gtid_binlog_pos")
        return str(found)


class Servers:
    """A primary, and the replicas ``slow`` and ``fast``, all from one initialized directory."""

    def __init__(self, made: Path) -> None:
        template = made / "template"
        run("mariadb-install-db", "--no-defaults", "--basedir=/usr", f"--datadir={template}", *_INSTALL)
        base = base_port()
        self.primary, self.slow, self.fast = (
            self._copy(template, name, base + number) for number, name in enumerate(("primary", "slow", "fast"))
        )

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        with directory() as made, ExitStack() as ended:
            found = cls(made)
            proxy = ended.enter_context(DelayingProxy.running(found.primary.port, 0.0))
            everything = (found.primary, found.slow, found.fast)
            for server in everything:
                ended.callback(server.stop)
                server.launch()
            for server in everything:
                server.wait()
            found.primary.sql(*_USERS)
            found.slow.follow(proxy.port)
            found.fast.follow(found.primary.port)
            for replica in (found.slow, found.fast):
                found.wait_for_replay(replica)
            proxy.delay_seconds = DELAY_SECONDS
            yield found

    def wait_for_replay(self, replica: Server) -> None:
        """Return when the replica has applied what the primary has written until now."""
        until(lambda: replica.position() == self.primary.position(), 20.0)

    def _copy(self, template: Path, name: str, port: int) -> Server:
        run("cp", "-r", template, template.with_name(name))
        return Server(template.with_name(name), port, port)
