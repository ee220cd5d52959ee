"""``lab probe``: addresses, passwords, the dry run, removal, the table, the JSON and the trace."""

import json
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab.cli import main
from lab.cli import probe as command
from lab.probe import http, instrument, redis
from lab.probe.instrument import Limits, Run
from lab.probe.target import Description, NotNow, Settings, TargetError
from tests.support.pages import require_self_contained
from tests.unit.lab.probe.store import Node, store

HTTP = ("http", "--write", "PUT http://a/{key}", "--read", "GET http://b/{key}", "--read", "GET http://c/{key}")
FAST = ("--rate", "100", "--seconds", "1", "--writes", "20")


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["probe", *arguments], env=environment)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """A store in place of the nodes that the addresses of ``HTTP`` name, in their order."""
    primary, replicas = store(lambda _: 0.0, lambda _: 0.0)
    found = [primary, *replicas]
    made = iter(found)
    monkeypatch.setattr(http, "node", lambda *_: next(made))
    return found


def test_the_table_shows_every_replica_with_its_bounds(nodes: list[Node]) -> None:
    done = run(*HTTP, *FAST)
    assert done.exit_code == 0, done.output
    assert "primary: 20 of 20 writes" in done.stdout
    for name in ("replica1: 20 writes, worth", "replica2: 20 writes, worth", "p99 of the window", "stale 10 ms later"):
        assert name in done.stdout
    assert "this describes these seconds only" in done.stdout
    assert nodes[0].statements == ["prepare", "remove", "close"]
    assert nodes[1].statements == ["close"]


def test_the_json_has_every_bracket_and_no_number_for_what_is_unknown(nodes: list[Node]) -> None:
    found: dict[str, Any] = json.loads(run(*HTTP, *FAST, "--json").stdout)
    replica = found["replicas"][0]
    assert len(replica["brackets"]) == found["writes"] == 20
    assert replica["quantiles_ms"]["p99"]["high"] is None
    assert found["ended"] is None


def test_the_trace_of_each_replica_is_taken_by_predict(nodes: list[Node], tmp_path: Path) -> None:
    done = run(*HTTP, *FAST, "--trace", str(tmp_path / "lag.csv"))
    assert done.exit_code == 0, done.output
    for number in (1, 2):
        file = str(tmp_path / f"lag-{number}.csv")
        predicted = CliRunner().invoke(main, ["predict", "replicas", "--replica", file])
        assert predicted.exit_code == 0, predicted.output
        assert "20 delays" in predicted.stderr


def test_the_report_is_written_beside_the_table_or_instead_of_it(nodes: list[Node], tmp_path: Path) -> None:
    page = tmp_path / "probe.html"
    done = run(*HTTP, *FAST, "--report", str(page))
    assert done.exit_code == 0, done.output
    assert "p99 of the window" in done.stdout
    assert page.read_text().count("<figure") == 4


def test_the_report_can_go_to_standard_output(nodes: list[Node]) -> None:
    done = run(*HTTP, *FAST, "--report", "-")
    assert (done.exit_code, done.stdout[:15], done.stdout[-8:]) == (0, "<!doctype html>", "</html>\n")


def test_without_matplotlib_a_report_is_refused_before_anything_is_created(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("lab.probe.report", "lab.report.page"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    done = run(*HTTP, *FAST, "--report", "-")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: Charts need matplotlib: install it with ")
    assert nodes[0].statements == []


def test_the_dry_run_shows_statements_and_missing_rights_and_changes_nothing(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes[0], "describe", lambda: Description(["WRITE [x]"], ["GRANT CREATE ON a TO b"]))
    done = run(*HTTP, "--dry-run")
    assert done.exit_code == 1
    assert "WRITE [x]" in done.stdout
    assert "missing: GRANT CREATE ON a TO b" in done.stdout
    assert nodes[0].statements == ["close"]


def test_the_dry_run_succeeds_if_nothing_is_missing(nodes: list[Node]) -> None:
    assert run(*HTTP, "--dry-run").exit_code == 0


def test_remove_only_removes(nodes: list[Node]) -> None:
    done = run("http", "--write", "PUT http://a/{key}", "--remove")
    assert (done.exit_code, done.stdout) == (0, "Removed.\n")
    assert nodes[0].statements == ["remove", "close"]


def test_what_could_not_be_removed_is_reported_after_the_result(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise TargetError("the connection is gone")

    monkeypatch.setattr(nodes[0], "remove", fail)
    done = run(*HTTP, *FAST)
    assert done.exit_code == 1
    assert "p99 of the window" in done.stdout
    assert "Not removed: the connection is gone. Run the same command with --remove." in done.stderr


def test_a_run_that_ended_early_shows_why_and_what_it_measured(nodes: list[Node]) -> None:
    nodes[0].fails = lambda number: TargetError("the disk is full") if number == 10 else None
    done = run(*HTTP, *FAST)
    assert done.exit_code == 1
    assert "the disk is full" in done.stdout
    assert "replica1: 9 writes" in done.stdout


def test_a_node_that_does_not_answer_is_one_sentence(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise NotNow("no answer within 5 s")

    monkeypatch.setattr(nodes[2], "settings", fail)
    done = run(*HTTP, *FAST)
    assert (done.exit_code, done.stderr) == (1, "Error: no answer within 5 s\n")
    assert nodes[0].statements == ["close"]


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:secret@host/db",
        "host=db1 user=x password=secret",
        "host=db1 PASSWORD = 'secret'",
        "redis://:secret@host:6379",
        "postgresql://host/db?password=secret",
    ],
)
@pytest.mark.parametrize("option", ["--primary", "--replica"])
def test_a_password_in_an_address_is_refused_and_not_repeated(address: str, option: str) -> None:
    done = run("redis", "--primary", "redis://a", option, address)
    assert done.exit_code == 1
    assert "LAB_PROBE_PASSWORD" in done.stderr
    assert "secret" not in done.output


def test_the_password_comes_from_the_environment_or_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str | None] = []

    def node(_: str, password: str | None) -> Node:
        given.append(password)
        return store()[0]

    monkeypatch.setattr(http, "node", node)
    remove = ("http", "--write", "PUT http://a/{key}", "--remove")
    run(*remove)
    run(*remove, LAB_PROBE_PASSWORD="one")
    CliRunner().invoke(main, ["probe", *remove, "--password"], input="two\n")
    assert given == [None, "one", "two"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("http",), "Give --write"),
        (("redis",), "Give --primary"),
        (("http", "--write", "PUT http://a/{key}"), "Give at least one --replica"),
        (("http", "--write", "PUT a", "--remove"), "is not of a form such as"),
        (("oracle",), "is not one of"),
        (("http", "--rate", "1000"), "is not in the range"),
        (("http", "--report", "/none/x.html"), "cannot be written"),
        ((*HTTP, "--json", "--report", "-"), "Only one of --json and --report"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code in {1, 2}
    assert said in done.stderr


def test_the_lab_must_run(tmp_path: Path) -> None:
    done = run("lab", "--data-dir", str(tmp_path))
    assert (done.exit_code, done.stderr[:21]) == (1, "Error: no lab runs in")


def test_the_options_are_the_limits_of_the_run() -> None:
    chosen = {"rate": 1.0, "seconds": 2.0, "writes": 3, "reads_per_second": 4.0, "give_up": 5.0}
    found = command._limits(chosen)
    assert (found.writes_per_second, found.seconds, found.writes_max) == (1.0, 2.0, 3)
    assert (found.reads_per_second, found.give_up_seconds) == (4.0, 5.0)


# -- sessions ----------------------------------------------------------------------------------------------------------

STORE = ("redis", "--primary", "redis://a", "--replica", "redis://b")
SESSIONS = (*STORE, "--sessions", "2", "--rate", "100", "--seconds", "1", "--route", "primary-writes")


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """A store in place of the nodes of ``STORE``, with a replica that never shows a write."""
    primary, (replica,) = store(lambda _: 1e9)
    primary.replicas.append((primary, lambda _: 0.0))
    monkeypatch.setattr(redis, "node", lambda address, _: primary if address == "redis://a" else replica)
    return [primary, replica]


@pytest.mark.parametrize(
    ("expected", "status", "said"),
    [
        (["no_lost_write", "read_your_writes"], 1, ""),
        (["consistent_prefix"], 2, "Error: expected, but not tested: consistent_prefix\n"),
    ],
)
def test_what_is_expected_of_sessions_decides(
    expected: list[str], status: int, said: str, late: list[Node], tmp_path: Path
) -> None:
    saved = str(tmp_path / "seen.jsonl")
    options = [word for guarantee in expected for word in ("--expect", guarantee)]
    done = run(*SESSIONS, "--give-up", "1", "--history", saved, *options)
    assert (done.exit_code, done.stderr) == (status, said)
    assert "read_your_writes, smallest counterexample:" in done.stdout
    assert "and was shown nothing, which is older" in done.stdout
    assert late[0].statements[0] == "prepare"
    assert late[0].statements[-1] == "close"
    assert late[0].statements.count("remove") == 1
    again = CliRunner().invoke(main, ["check", "--history", saved])
    assert (again.exit_code, again.stderr) == (status, said)


def test_sessions_have_a_report_of_their_own(late: list[Node], tmp_path: Path) -> None:
    done = run(*SESSIONS, "--give-up", "1", "--report", "-")
    assert (done.exit_code, done.stderr) == (0, "")
    shown = require_self_contained(done.stdout)
    assert shown.names.count("figure") == 1
    found = json.loads(shown.data)
    assert {one["guarantee"] for one in found["verdicts"] if one["verdict"] == "violated"} >= {"read_your_writes"}
    assert "read_your_writes: smallest counterexample" in done.stdout
    assert len(found["history"]) == sum(found["operations"].values())


def test_sessions_that_end_early_say_why(late: list[Node]) -> None:
    late[1].fails = lambda _: NotNow("it is gone")
    done = run(*SESSIONS, "--json")
    assert done.exit_code == 2
    why, nothing = done.stderr.splitlines()
    assert re.fullmatch(r"Ended early: replica1: \d+ of \d+ reads failed, the last one with: it is gone\.", why)
    assert nothing == "Error: nothing was tested: no operation relevant to a guarantee succeeded"
    assert {found["verdict"] for found in json.loads(done.stdout)["verdicts"]} == {"not tested"}


def test_a_promotion_ends_sessions_with_what_was_seen_until_then(late: list[Node]) -> None:
    def promote(operation: int) -> None:
        late[1].is_replica = operation < 40

    late[1].fails = promote
    done = run(*SESSIONS)
    assert done.exit_code == 1
    assert re.fullmatch(
        "Ended early: replica1 became a primary during the run; .* with --primary and --remove.\n", done.stderr
    )
    assert "read_your_writes, smallest counterexample:" in done.stdout


def test_nodes_of_two_stores_are_refused_before_anything_is_created(late: list[Node]) -> None:
    late[1].identity = "other"
    done = run(*SESSIONS)
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: replica1 is not a replica of primary: it belongs to another store\n",
    )
    assert late[0].statements == ["close"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*STORE, "--expect", "read_your_writes"], "--route, --history and --expect require --sessions"),
        ([*STORE, "--route", "sticky"], "--route, --history and --expect require --sessions"),
        ([*STORE, "--sessions", "2", "--trace", "lag.csv"], "--trace is of a measurement"),
        ([*HTTP, "--sessions", "2"], "--sessions require a primary that they can read"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, said in done.stderr) == (2, True)


@pytest.fixture
def stopped_at_once(monkeypatch: pytest.MonkeyPatch) -> list[Limits]:
    """Ctrl-C at the first write of a run; the limits of the runs."""
    limits: list[Limits] = []

    def measure(primary: Node, replicas: list[Node], chosen: Limits, *, stop: threading.Event, **given: Any) -> Run:
        limits.append(chosen)
        return instrument.run(
            primary, replicas, chosen, stop=stop, on_step=lambda _: os.kill(os.getpid(), signal.SIGTERM), **given
        )

    monkeypatch.setattr(command, "measure", measure)
    return limits


def test_an_exporter_runs_until_it_is_stopped_and_leaves_nothing(
    nodes: list[Node], stopped_at_once: list[Limits]
) -> None:
    before, threads = signal.getsignal(signal.SIGTERM), set(threading.enumerate())
    done = run(*HTTP, "--listen", "127.0.0.1:0")
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(r"Metrics at http://127\.0\.0\.1:\d+/metrics; Ctrl-C ends\.\n", done.stdout)
    assert nodes[0].statements == ["prepare", "remove", "close"]
    assert [(found.are_endless, found.writes_per_second) for found in stopped_at_once] == [(True, 1.0)]
    assert signal.getsignal(signal.SIGTERM) == before
    assert set(threading.enumerate()) <= threads


def test_the_rate_of_an_exporter_can_be_chosen(nodes: list[Node], stopped_at_once: list[Limits]) -> None:
    run(*HTTP, "--listen", "127.0.0.1:0", "--rate", "5")
    assert stopped_at_once[0].writes_per_second == 5.0


def test_an_exporter_that_cannot_go_on_fails_with_a_sentence(nodes: list[Node]) -> None:
    nodes[1].fails = lambda number: NotNow("lost") if number == 1 else None
    identities = iter(["one", "another"])
    nodes[1].settings = lambda: Settings(next(identities))  # type: ignore[method-assign]
    done = run(*HTTP, "--listen", "127.0.0.1:0")
    assert done.exit_code == 1
    assert done.stderr == "Ended: replica1 belongs to another store since its connection was lost.\n"
    assert nodes[0].statements == ["prepare", "remove", "close"]


@pytest.mark.parametrize(
    "option",
    [("--seconds", "5"), ("--writes", "5"), ("--json",), ("--report", "-"), ("--trace", "x.csv"), ("--sessions", "2")],
)
def test_what_is_of_a_run_with_an_end_is_refused_for_an_exporter(option: tuple[str, ...]) -> None:
    done = run("redis", "--primary", "a", "--replica", "b", "--listen", "0", *option)
    assert (done.exit_code, f"{option[0]} is for a run with an end" in done.stderr) == (2, True)
