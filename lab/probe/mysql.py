"""A MySQL or MariaDB server."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from lab.errors import LabError
from lab.probe.target import PREFIX, Description, NotNow, Settings, Shown, TargetError

try:
    import pymysql
except ModuleNotFoundError:
    raise LabError(
        "Probing MySQL needs PyMySQL: install it with `pip install 'eventual-consistency-lab[probe]'`, "
        "or in a checkout with `make up`."
    ) from None

Row = tuple[Any, ...]
_MARK = "Created by lab probe, which removes it."
_CREATE = (
    "CREATE DATABASE IF NOT EXISTS lab_probe",
    "CREATE TABLE lab_probe.numbers (k VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, "
    f"number BIGINT NOT NULL) ENGINE = InnoDB COMMENT = '{_MARK}'",
)
_WRITE = "INSERT INTO lab_probe.numbers VALUES (%s, %s) ON DUPLICATE KEY UPDATE number = GREATEST(number, %s)"
# The left side has one row, which gives the role even if no key has a number.
_READ = "SELECT @@global.read_only, k, number FROM (SELECT 1) AS one LEFT JOIN lab_probe.numbers ON k IN %s"
_ROLE = "SELECT @@global.read_only"
_REMOVE = "DROP DATABASE IF EXISTS lab_probe"
_CONTENT = (
    "SELECT table_name, table_comment FROM information_schema.tables WHERE table_schema = 'lab_probe' "
    "UNION ALL SELECT routine_name, '' FROM information_schema.routines WHERE routine_schema = 'lab_probe'"
)
_GRANTED = (
    "SELECT privilege_type FROM information_schema.user_privileges WHERE grantee = %s "
    "UNION SELECT privilege_type FROM information_schema.schema_privileges "
    "WHERE grantee = %s AND 'lab_probe' LIKE table_schema"
)
_ROLES = "SELECT role_name FROM information_schema.enabled_roles WHERE role_name IS NOT NULL"
_SETTINGS = "SHOW GLOBAL VARIABLES WHERE variable_name IN %s"
_STATUS = "SHOW REPLICA STATUS"
_NAMES = (  # MariaDB's and MySQL's
    "version",
    "read_only",
    "tx_isolation",
    "transaction_isolation",
    "autocommit",
    "binlog_format",
    "sync_binlog",
    "innodb_flush_log_at_trx_commit",
    "rpl_semi_sync_master_enabled",
    "rpl_semi_sync_source_enabled",
    "slave_parallel_threads",
    "replica_parallel_workers",
)
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 10.0  # a lock, or semi-synchronous replication, can block a write for longer
_MESSAGE_MAX = 500  # characters of an error
# Lock wait timeout, deadlock, canceled, and the time limits of MariaDB and MySQL.
_PASSING = {1205, 1213, 1317, 1969, 3024}
# Server shutdown, connection killed, disconnected when idle, gone away, lost.
_LOST = {1053, 1927, 2006, 2013, 4031}
_NO_TABLE = {1049, 1146}
_DENIED = {1044, 1142, 1227}
_READ_ONLY = "it accepts no writes: it is read-only; give the primary's address"
_SENTENCES = {
    1021: "its disk is full",
    1114: "its disk is full, or a limit of its table space is reached",
    **dict.fromkeys((1290, 1836), _READ_ONLY),
    **dict.fromkeys(_NO_TABLE, f"the table {PREFIX}.numbers does not exist; it was removed during the run"),
}
_OPTIONS = {"ssl_ca", "unix_socket"}
_ADDRESS = (
    "invalid address; write 'mysql://lab_probe@db1:3306/', with ?ssl_ca=FILE to verify the server's certificate, "
    "or ?unix_socket=FILE"
)


def node(address: str, password: str | None) -> "MySQL":
    """``address`` is a URL with a user, without a database: the probe creates its own."""
    try:
        url = urlsplit(address)
        port = url.port or 3306
        given = dict(parse_qsl(url.query, strict_parsing=True)) if url.query else {}
    except ValueError:
        raise TargetError(_ADDRESS) from None
    if url.password is not None:
        raise TargetError("an address must not contain a password: give it in LAB_PROBE_PASSWORD")
    if (
        url.scheme not in {"mysql", "mariadb"}
        or not url.hostname
        or url.path not in {"", "/"}
        or given.keys() - _OPTIONS
    ):
        raise TargetError(_ADDRESS)
    where = {"host": url.hostname, "port": port, "user": unquote(url.username or ""), **given}
    return MySQL(address, where, password)


class MySQL:
    """One connection, with autocommit: a transaction would keep its first snapshot, and never see a later write."""

    def __init__(
        self, name: str, where: Mapping[str, Any], password: str | None, answer_seconds: float = _ANSWER_SECONDS
    ) -> None:
        self.name = name
        self._where = where
        self._password = password
        self._answer_seconds = answer_seconds
        self._connection: pymysql.Connection[Any] | None = None

    def describe(self) -> Description:
        with self._errors():
            is_replica = self._is_read_only()
            grant = self._missing_grant(is_replica=is_replica)
        changes = () if is_replica else (_CONTENT, *_CREATE, _WRITE, _REMOVE)
        return Description((_SETTINGS, _STATUS, *changes, _READ), (grant,) if grant else ())

    def settings(self) -> Settings:
        with self._errors():
            values = {str(name): str(value) for name, value in self._rows(_SETTINGS, _NAMES)}
            values |= self._replication()
        return Settings(None, values, tuple(warnings(values)))

    def prepare(self) -> None:
        with self._errors():
            self._refuse_foreign()
            if self._rows(_CONTENT):
                raise TargetError(
                    f"{self.name}: the database {PREFIX} has a table: another probe is running, or one could not "
                    "remove it; if none is running, remove it with --remove"
                )
            if self._is_read_only():  # an administrator could write nevertheless
                raise TargetError(f"{self.name}: {_READ_ONLY}")
            if grant := self._missing_grant(is_replica=False):
                raise TargetError(f"{self.name}: privileges are missing; as an administrator: {grant}")
            for statement in _CREATE:
                self._rows(statement)

    def write(self, key: str, number: int) -> None:
        with self._errors(may_pass=True):
            self._rows(_WRITE, key, number, number)

    def read(self, keys: Sequence[str]) -> Shown:
        with self._errors(may_pass=True):
            try:
                rows = self._rows(_READ, list(keys) or [""])
            except pymysql.MySQLError as error:
                if error.args[0] not in _NO_TABLE:
                    raise
                rows = [(role, None, None) for (role,) in self._rows(_ROLE)]  # it has not applied the creation yet
        return Shown({key: number for _, key, number in rows if key is not None}, _is_on(rows[0][0]))

    def remove(self) -> None:
        with self._errors():
            self._refuse_foreign()
            self._rows(_REMOVE)

    def close(self) -> None:
        if self._connection is not None:
            with suppress(pymysql.MySQLError):  # it is closed already
                self._connection.close()
            self._connection = None

    def _connected(self) -> "pymysql.Connection[Any]":
        if self._connection is None:
            self._connection = pymysql.connect(
                **self._where,
                password=(self._password or "").encode(),  # PyMySQL would encode a string as Latin-1
                autocommit=True,
                charset="utf8mb4",
                program_name=PREFIX,
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=self._answer_seconds,
                write_timeout=self._answer_seconds,
            )
        return self._connection

    def _rows(self, statement: str, *values: Any) -> list[Row]:
        with self._connected().cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def _is_read_only(self) -> bool:
        return _is_on(self._rows(_ROLE)[0][0])

    def _refuse_foreign(self) -> None:
        if any((name, comment) != ("numbers", _MARK) for name, comment in self._rows(_CONTENT)):
            raise TargetError(f"{self.name}: the database {PREFIX} has what no probe created; drop or rename it")

    def _missing_grant(self, *, is_replica: bool) -> str:
        """The GRANT to give; empty if the user has a role, whose privileges are not looked up."""
        ((current,),) = self._rows("SELECT CURRENT_USER()")
        user, _, host = str(current).rpartition("@")
        grantee = f"'{user}'@'{host}'"
        granted = {str(privilege) for (privilege,) in self._rows(_GRANTED, grantee, grantee)}
        needed = ("SELECT",) if is_replica else ("SELECT", "INSERT", "UPDATE", "CREATE", "DROP")
        missing = ", ".join(one for one in needed if one not in granted)
        return f"GRANT {missing} ON {PREFIX}.* TO {grantee}" if missing and not self._rows(_ROLES) else ""

    def _replication(self) -> dict[str, str]:
        """The delay that a replica is set to; nothing on a primary, and without the privilege to ask."""
        try:
            with self._connected().cursor(pymysql.cursors.DictCursor) as cursor:
                cursor.execute(_STATUS)
                delays = [int(row["SQL_Delay"]) for row in cursor.fetchall()]
                return {"SQL_Delay": str(max(delays))} if delays else {}
        except pymysql.MySQLError as error:
            if error.args[0] not in _DENIED:
                raise
            return {}

    @contextmanager
    def _errors(self, *, may_pass: bool = False) -> Iterator[None]:
        try:
            yield
        except (pymysql.MySQLError, RuntimeError) as error:  # RuntimeError: a way to log in needs another package
            code = error.args[0] if error.args else None
            is_lost = self._connection is None or not self._connection.open or code in _LOST
            sentence = self._sentence(code, error)
            if is_lost:
                self.close()
            if may_pass and (is_lost or code in _PASSING):
                raise NotNow(sentence) from error
            raise TargetError(f"{self.name}: {sentence}") from error

    def _sentence(self, code: object, error: Exception) -> str:
        said = _SENTENCES.get(code) if isinstance(code, int) else None
        if said is None:
            said = " ".join(str(error.args[-1] if error.args else error).split())[:_MESSAGE_MAX]
        if code in _DENIED:
            with suppress(pymysql.MySQLError):  # only the GRANT is unknown then
                return f"{said}; as an administrator: {self._missing_grant(is_replica=self._is_read_only())}"
        return f"{said}; give the password in LAB_PROBE_PASSWORD" if code == 1045 and not self._password else said


def warnings(values: Mapping[str, str]) -> Iterator[str]:
    """Sentences about settings that surprise a reader."""
    isolation = values.get("transaction_isolation") or values.get("tx_isolation")
    if isolation in {"REPEATABLE-READ", "SERIALIZABLE"}:
        yield (
            f"transaction isolation is {isolation}: a client without autocommit, which is the default of some drivers, "
            "keeps the snapshot of its first read and never sees a later write. The probe reads with autocommit."
        )
    for name in ("rpl_semi_sync_master_enabled", "rpl_semi_sync_source_enabled"):
        if _is_on(values.get(name, "OFF")):
            yield (
                f"{name} is ON: a write is acknowledged when a replica has received it, before it is applied, so that "
                "reads of this replica can be stale as well."
            )
    if (delay := values.get("SQL_Delay", "0")) != "0":
        yield f"SQL_Delay is {delay} s: the server counts in whole seconds, so that the delay varies by up to a second."
    if "SQL_Delay" in values and not _is_on(values.get("read_only", "ON")):
        yield "read_only is OFF on this replica: clients can write to it, and its promotion cannot be detected."


def _is_on(value: object) -> bool:
    return str(value).upper() not in {"0", "OFF"}
