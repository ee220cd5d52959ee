"""``lab fault``: parameters and output."""

import re
from typing import Any

import pytest
from click.testing import CliRunner

from lab import client
from lab.cli import main
from lab.cli.fault import parameters
from lab.errors import LabError


@pytest.mark.parametrize(
    ("fault", "given", "wanted"),
    [
        ("corrupt", ("key=123",), {"key": "123"}),
        ("corrupt", ("key=no",), {"key": "no"}),
        ("corrupt", ("key=2026-01-01",), {"key": "2026-01-01"}),
        ("corrupt", ("key=a=b",), {"key": "a=b"}),
        ("pause", ("duration_ms=5000",), {"duration_ms": 5000}),
        ("skew", ("skew_ms=-1.5",), {"skew_ms": -1.5}),
        ("drop_ack", (), {}),
    ],
)
def test_a_parameter_has_the_type_that_the_fault_declares(fault: str, given: tuple[str, ...], wanted: Any) -> None:
    assert parameters(fault, given) == wanted


@pytest.mark.parametrize(
    ("fault", "given", "said"),
    [
        ("pausse", (), "unknown fault 'pausse'; choose from corrupt, crash"),
        ("pause", ("duration_ms",), "not of the form name=value, such as duration_ms=5000"),
        ("pause", ("duration_ms=1", "duration_ms=2"), "'duration_ms' is given twice"),
        ("pause", ("duration_ms=yes",), "duration_ms: .*integer"),
        ("pause", ("duration_ms=" + "9" * 5000,), "duration_ms: "),
        ("pause", ("replica=x",), "replica: "),
        ("pause", ("fault=crash",), "'fault' is given twice"),
        ("skew", (), "skew_ms: "),
        ("skew", ("skew_ms=nan",), "skew_ms: "),
        ("crash", ("duration_ms=5",), "momentary"),
        ("corrupt", ("key=",), "key: a key must have 1 to 512 bytes"),
    ],
)
def test_an_invalid_parameter_is_rejected_with_a_message(fault: str, given: tuple[str, ...], said: str) -> None:
    with pytest.raises(LabError, match=said):
        parameters(fault, given)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("log pause", "fault: Input should be 'failover', 'failback' or 'isolate-master'"),
        ("log failover duration_ms=5000", "duration_ms: not allowed, because this fault is momentary"),
        ("log isolate-master duration_ms=yes", "duration_ms: .*integer"),
        ("log isolate-master duration_ms=0", "duration_ms: .*greater than or equal to 1"),
        ("log isolate-master master=x", "master: Extra inputs are not permitted"),
        ("log isolate-master replica=r1", "'replica' is given twice"),
        ("log failover fault=isolate-master", "'fault' is given twice"),
        ("lab14-replica1 failover", "unknown fault 'failover'"),
    ],
)
def test_a_fault_of_the_log_server_has_its_own_parameters(line: str, said: str) -> None:
    done = CliRunner().invoke(main, ["fault", "start", *line.split(), "--client-url", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    assert re.search(said, done.output), done.output


def test_a_fault_of_the_log_server_is_sent_with_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def post(url: str, body: Any) -> dict[str, Any]:
        sent.append((url, body))
        return {"fault": "isolate-master", "replica": "log", "until": "2026-01-01T00:00:06Z"}

    monkeypatch.setattr(client, "post", post)
    line = ["fault", "start", "log", "isolate-master", "duration_ms=6000", "--client-url", "http://c"]
    done = CliRunner().invoke(main, line)
    assert done.output == "isolate-master on log, until 2026-01-01T00:00:06Z.\n"
    assert sent == [("http://c/faults", {"replica": "log", "fault": "isolate-master", "duration_ms": 6000})]


def test_a_replica_whose_faults_could_not_be_ended_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"r1": {"ended": ["pause"]}, "r2": {"ended": []}, "r3": {"error": "http://r3 cannot be reached"}}
    monkeypatch.setattr(client, "call", lambda *_: (200, {"replicas": answers}))
    done = CliRunner().invoke(main, ["fault", "end", "--client-url", "http://127.0.0.1:9"])
    assert (done.exit_code, done.stdout) == (1, "r1: pause\nr2: no fault was active\n")
    assert done.stderr == "r3: http://r3 cannot be reached\n"
