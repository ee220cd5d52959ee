"""The PostgreSQL target's addresses, its warnings about settings, and its errors."""

import psycopg
import pytest
from psycopg import errors

from lab.probe import postgresql
from lab.probe.target import NotNow, TargetError

PLAIN = {"synchronous_commit": "on", "default_transaction_isolation": "read committed"}


@pytest.mark.parametrize("address", ["host=db1 dbname=app", "service=p", "postgresql://prober@db1/app", ""])
def test_an_address_is_a_connection_string_and_opens_nothing(address: str) -> None:
    assert postgresql.node(address, "secret").name == address


@pytest.mark.parametrize("address", ["host=db1 pass word=secret", "host=db1 password='secret", "db1"])
def test_an_invalid_address_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(TargetError, match=r"^invalid address; write ") as raised:
        postgresql.node(address, None)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "host=db1 password=secret",
        "postgresql://prober:secret@db1/",
        "postgresql://db1/?password=secret",
        "sslpassword=secret",
    ],
)
def test_an_address_with_a_password_is_refused(address: str) -> None:
    with pytest.raises(
        TargetError, match=r"an address must not contain a (ssl)?password: .*LAB_PROBE_PASSWORD"
    ) as raised:
        postgresql.node(address, None)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "is_replica", "said"),
    [
        ({}, False, []),
        ({}, True, []),
        ({"synchronous_commit": "off"}, False, ["synchronous_commit is off"]),
        ({"synchronous_commit": "off"}, True, []),
        ({"synchronous_standby_names": "*"}, False, ["synchronous_standby_names is set"]),
        ({"synchronous_standby_names": "*", "synchronous_commit": "remote_apply"}, False, []),
        ({"recovery_min_apply_delay": "200ms"}, True, ["recovery_min_apply_delay is 200ms"]),
        ({"recovery_min_apply_delay": "200ms"}, False, []),
        ({"max_standby_streaming_delay": "-1"}, True, ["max_standby_streaming_delay is -1"]),
        ({"default_transaction_isolation": "serializable"}, True, ["default_transaction_isolation is serializable"]),
    ],
)
def test_settings_that_surprise_a_reader_are_warned_of(
    changed: dict[str, str], is_replica: bool, said: list[str]
) -> None:
    found = list(postgresql.warnings({**PLAIN, **changed}, is_replica=is_replica))
    assert [sentence.split(",")[0].split(":")[0] for sentence in found] == said
    assert all(sentence.endswith(".") for sentence in found)


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (errors.DiskFull("could not extend file"), TargetError, "its disk is full"),
        (errors.ReadOnlySqlTransaction("cannot execute INSERT"), TargetError, "it accepts no writes"),
        (errors.NumericValueOutOfRange("bigint out of range"), TargetError, "bigint out of range"),
        (errors.SerializationFailure("conflict\n with recovery"), NotNow, "conflict with recovery"),
        (errors.QueryCanceled("canceling statement"), NotNow, "canceling statement"),
    ],
)
def test_an_error_of_a_write_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: psycopg.Error, raised: type[Exception], said: str
) -> None:
    monkeypatch.setattr(postgresql._Connection, "connect", lambda **_: Failing(error))
    name = "host=db1: " if raised is TargetError else ""  # whoever catches the other one names the node
    with pytest.raises(raised, match=f"^{name}{said}"):
        postgresql.node("host=db1", None).write("k", 1)


def test_a_hint_of_libpq_is_left_out() -> None:
    error = psycopg.OperationalError("port 1 failed: Connection refused\n\tIs the server running on that host?\n")
    assert postgresql._one_line(error) == "port 1 failed: Connection refused"


class Failing:
    """A connection whose every statement fails."""

    closed = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    def execute(self, *_: object) -> None:
        raise self._error
