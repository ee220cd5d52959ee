"""A PostgreSQL server, directly or through PgBouncer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from lab.errors import LabError
from lab.probe.target import PREFIX, Description, NotNow, Settings, Shown, TargetError

try:
    import psycopg
    from psycopg import conninfo, errors
    from psycopg.abc import PQGen
except ImportError:  # also raised if psycopg has neither its binary nor libpq
    raise LabError(
        "Probing PostgreSQL needs psycopg: install it with `pip install 'eventual-consistency-lab[probe]'`, "
        "or in a checkout with `make up`."
    ) from None

_MARK = "Created by lab probe, which removes it."
# Readable by all: a user that reads a replica could not be granted that before the schema exists.
_CREATE = (
    "CREATE SCHEMA lab_probe",
    f"COMMENT ON SCHEMA lab_probe IS '{_MARK}'",
    "CREATE TABLE lab_probe.numbers (key text PRIMARY KEY, number bigint NOT NULL)",
    "GRANT USAGE ON SCHEMA lab_probe TO PUBLIC",
    "GRANT SELECT ON lab_probe.numbers TO PUBLIC",
)
_WRITE = (
    "INSERT INTO lab_probe.numbers AS old VALUES (%s, %s) "
    "ON CONFLICT (key) DO UPDATE SET number = excluded.number WHERE old.number < excluded.number"
)
# The left side has one row, which gives the role even if no key has a number.
_READ = (
    "SELECT pg_is_in_recovery(), key, number "
    "FROM (VALUES (1)) AS one LEFT JOIN lab_probe.numbers ON key = ANY(%s::text[])"
)
# A primary can have become read-only by default during the run. Without CASCADE: an object that someone else has put
# there is not removed.
_REMOVE = (
    "SET TRANSACTION READ WRITE",
    "DROP TABLE IF EXISTS lab_probe.numbers",
    "DROP SCHEMA lab_probe",
)
_ROLE = "SELECT pg_is_in_recovery()"
_COMMENT = "SELECT oid, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'lab_probe'"
_GRANT = (
    "SELECT format('GRANT CREATE ON DATABASE %%I TO %%I', current_database(), current_user), "
    "has_database_privilege(current_database(), 'CREATE') OR pg_is_in_recovery()"
)
_IDENTITY = "SELECT system_identifier::text FROM pg_control_system()"
_SETTINGS = "SELECT name, current_setting(name, true) FROM unnest(%s::text[]) AS name"
_STANDBYS = (  # the state is NULL for a user without pg_monitor
    "SELECT application_name, sync_state FROM pg_stat_replication WHERE sync_state IS NOT NULL ORDER BY 1 LIMIT 20"
)
_NAMES = (
    "server_version",
    "synchronous_commit",
    "synchronous_standby_names",
    "wal_writer_delay",
    "default_transaction_isolation",
    "recovery_min_apply_delay",
    "max_standby_streaming_delay",
    "hot_standby_feedback",
)
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 10.0  # a synchronous standby that is down blocks a write without end, whatever statement_timeout is
_MESSAGE_MAX = 500  # characters of an error
# Serialization failure, which on a standby is a conflict with replication; deadlock; lock not available; canceled.
_PASSING = {"40001", "40P01", "55P03", "57014"}
_READ_ONLY = "it accepts no writes: it is a standby, or default_transaction_read_only is on; give the primary's address"
_SENTENCES: Mapping[type[psycopg.Error], str] = {
    errors.ReadOnlySqlTransaction: _READ_ONLY,
    errors.DiskFull: "its disk is full",
    errors.UndefinedTable: f"the table {PREFIX}.numbers does not exist; it was removed during the run",
}
_ADDRESS = "invalid address; write 'host=db1 dbname=app user=lab_probe', 'service=name', or 'postgresql://…'"
_HOW_TO_AUTHENTICATE = "give the password in LAB_PROBE_PASSWORD, PGPASSFILE, or a service file"
Result = TypeVar("Result")


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose every operation has a bound."""

    answer_seconds = _ANSWER_SECONDS

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)


def node(address: str, password: str | None) -> "PostgreSQL":
    """``address`` is a connection string of libpq: keywords with values, a URL, or ``service=name``."""
    try:
        given = conninfo.conninfo_to_dict(address)
    except psycopg.Error:  # which would repeat a part of the address, and a password that is in it
        raise TargetError(_ADDRESS) from None
    if secret := {"password", "sslpassword"} & given.keys():
        raise TargetError(f"an address must not contain a {secret.pop()}: {_HOW_TO_AUTHENTICATE}")
    return PostgreSQL(address, password)


class PostgreSQL:
    """One connection, with autocommit: a transaction would keep its first snapshot, and never see a later write."""

    def __init__(self, address: str, password: str | None, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self.name = address
        self._password = password
        self._answer_seconds = answer_seconds
        self._connection: _Connection | None = None

    def describe(self) -> Description:
        with self._errors():
            ((grant, is_granted),) = self._rows(_GRANT)
            is_replica = self._is_replica()
        changes = () if is_replica else (_COMMENT, *_CREATE, _WRITE, *_REMOVE)
        return Description((_ROLE, _IDENTITY, _SETTINGS, _STANDBYS, *changes, _READ), () if is_granted else (grant,))

    def settings(self) -> Settings:
        with self._errors():
            values = {name: value for name, value in self._rows(_SETTINGS, list(_NAMES)) if value}
            is_replica = self._is_replica()
            if standbys := self._rows(_STANDBYS):
                values["sync_state"] = ", ".join(f"{name}: {state}" for name, state in standbys)
            return Settings(self._identity(), values, tuple(warnings(values, is_replica=is_replica)))

    def prepare(self) -> None:
        with self._errors():
            if comment := self._comment():
                raise TargetError(self._in_the_way(comment))
            self._transaction(_CREATE)

    def write(self, key: str, number: int) -> None:
        with self._errors(may_pass=True):
            self._connected().execute(_WRITE, (key, number))

    def read(self, keys: Sequence[str]) -> Shown:
        with self._errors(may_pass=True):
            try:
                rows = self._rows(_READ, list(keys))
            except errors.UndefinedTable:  # a replica that has not applied its creation yet
                rows = [(self._is_replica(), None, None)]
        return Shown({key: number for _, key, number in rows if key is not None}, is_replica=rows[0][0])

    def remove(self) -> None:
        with self._errors():
            comment = self._comment()
            if comment == _MARK:
                if self._is_replica():
                    raise TargetError(f"{self.name}: {_READ_ONLY}")
                self._transaction(_REMOVE)
            elif comment:
                raise TargetError(self._in_the_way(comment))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> _Connection:
        if self._connection is None:
            # Its own defaults, which an address can override; PgBouncer gives each transaction to any connection to the
            # server, which does not have the statements that another one has prepared.
            defaults: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "application_name": PREFIX}
            options = defaults | conninfo.conninfo_to_dict(self.name) | {"prepare_threshold": None, "autocommit": True}
            if self._password is not None:
                options["password"] = self._password
            self._connection = _Connection.connect(**options)
            self._connection.answer_seconds = self._answer_seconds
        return self._connection

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connected().execute(statement, values).fetchall()

    def _transaction(self, statements: Sequence[str]) -> None:
        connection = self._connected()
        with connection.transaction():
            for statement in statements:
                connection.execute(statement)

    def _is_replica(self) -> bool:
        return self._rows(_ROLE) == [(True,)]

    def _identity(self) -> str | None:
        try:
            return str(self._rows(_IDENTITY)[0][0])
        except (errors.InsufficientPrivilege, errors.UndefinedFunction):  # as on some managed services
            return None

    def _comment(self) -> str:
        """The comment of the schema; empty if there is no schema."""
        return next((comment or "no comment" for _, comment in self._rows(_COMMENT)), "")

    def _in_the_way(self, comment: str) -> str:
        if comment == _MARK:
            return (
                f"{self.name}: the schema {PREFIX} exists: another probe is running, or one could not remove it; "
                "if none is running, remove it with --remove"
            )
        return f"{self.name}: the schema {PREFIX} exists and was not created by a probe; rename it, or drop it"

    @contextmanager
    def _errors(self, *, may_pass: bool = False) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            is_lost = self._connection is None or self._connection.closed or isinstance(error, errors._WaitTimeout)
            sentence = self._sentence(error)
            if is_lost:
                self.close()
            if may_pass and (is_lost or error.sqlstate in _PASSING):
                raise NotNow(sentence) from error
            raise TargetError(f"{self.name}: {sentence}") from error

    def _sentence(self, error: psycopg.Error) -> str:
        if isinstance(error, errors.InsufficientPrivilege):
            with suppress(psycopg.Error):  # only the GRANT is unknown then
                return f"{_one_line(error)}; as an administrator: {self._rows(_GRANT)[0][0]}"
        if isinstance(error, errors._WaitTimeout):
            return f"no answer within {self._answer_seconds:g} s"
        said = _SENTENCES.get(type(error)) or _one_line(error)
        lacks_password = error.pgconn is not None and error.pgconn.needs_password
        return f"{said}; {_HOW_TO_AUTHENTICATE}" if lacks_password else said


def warnings(values: Mapping[str, str], *, is_replica: bool) -> Iterator[str]:
    """Sentences about settings that surprise a reader."""
    yield from _of_a_replica(values) if is_replica else _of_a_primary(values)
    isolation = values.get("default_transaction_isolation", "")
    if isolation in {"repeatable read", "serializable"}:
        yield (
            f"default_transaction_isolation is {isolation}: a transaction keeps the snapshot of its first statement "
            "and never sees a later write. Each read of the probe is a transaction of its own."
        )


def _of_a_primary(values: Mapping[str, str]) -> Iterator[str]:
    commit = values.get("synchronous_commit", "")
    if commit == "off":
        yield (
            "synchronous_commit is off: a write is acknowledged before its WAL is flushed, and only flushed WAL is "
            f"sent to replicas: reads of all replicas are stale for up to 3 times wal_writer_delay "
            f"({values.get('wal_writer_delay')})."
        )
    if values.get("synchronous_standby_names") and commit in {"local", "remote_write", "on"}:
        yield (
            f"synchronous_standby_names is set, but synchronous_commit is {commit}: a write is acknowledged before a "
            "synchronous standby applies it, so that it can be stale. Only remote_apply waits for that."
        )


def _of_a_replica(values: Mapping[str, str]) -> Iterator[str]:
    if (delay := values.get("recovery_min_apply_delay", "0")) != "0":
        yield (
            f"recovery_min_apply_delay is {delay}: this replica applies each commit that long after the primary's "
            "timestamp, by its own clock. A difference between the two clocks adds to it."
        )
    if values.get("max_standby_streaming_delay") == "-1":
        yield "max_standby_streaming_delay is -1: a long query delays this replica without a bound."


def _one_line(error: Exception) -> str:
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = (primary or str(error)).splitlines()
    # A line of libpq that starts with a tab is a hint, "Is the server running on that host …?"
    return " ".join(" ".join(line for line in lines if not line.startswith("\t")).split())[:_MESSAGE_MAX]
