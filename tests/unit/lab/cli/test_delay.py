"""``lab delay``: what it sends, shows and rejects."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab import client
from lab.cli import main

EXPONENTIAL = {"kind": "exponential", "mean_ms": 300}
URL = "http://lab14-replica2:8002"
CURRENT = {
    "delays": {URL: 1500},
    "models": {URL: {"kind": "fixed", "ms": 1500}},
    "ack_delays": {URL: 300},
    "ack_models": {URL: EXPONENTIAL},
    "read_delays": {URL: 0},
    "read_models": {URL: {"kind": "fixed", "ms": 0}},
    "orders": {URL: "log"},
    "seeds": {URL: 7},
}
CHANGED = {"status": "updated", "replica_url": URL, "delay_ms": 1500, "all_delays": {URL: 1500}}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The bodies of the changes sent to a client service, which accepts them all."""
    bodies: list[Any] = []

    def call(method: str, _url: str, body: Any = None, *_: Any) -> tuple[int, Any]:
        if method == "GET":
            return 200, CURRENT
        bodies.append(body)
        return 200, CHANGED

    monkeypatch.setattr(client, "call", call)
    return bodies


def lab_delay(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["delay", *arguments, "--client-url", "http://127.0.0.1:9"])


def test_every_setting_of_a_replica_is_shown(sent: list[Any]) -> None:
    _, row = lab_delay("show").stdout.splitlines()
    assert [cell.strip() for cell in row.split("  ") if cell] == [
        "lab14-replica2", "1500 ms", "exponential, mean 300 ms", "0 ms", "log", "7",
    ]  # fmt: skip
    assert json.loads(lab_delay("show", "--json").stdout) == {
        "lab14-replica2": {
            "delay_ms": 1500,
            "model": {"kind": "fixed", "ms": 1500},
            "ack_delay_ms": 300,
            "ack_model": EXPONENTIAL,
            "read_delay_ms": 0,
            "read_model": {"kind": "fixed", "ms": 0},
            "order": "log",
            "seed": 7,
        }
    }
    assert sent == []


@pytest.mark.parametrize(
    ("given", "wanted", "said"),
    [
        (("--delay", "1500"), {"model": {"kind": "fixed", "ms": 1500}}, "delay 1500 ms"),
        (("--ack", json.dumps(EXPONENTIAL)), {"ack_model": EXPONENTIAL}, "ack exponential, mean 300 ms"),
        (("--read", "0.5"), {"read_model": {"kind": "fixed", "ms": 0.5}}, "read 0.5 ms"),
        (("--order", "arrival", "--seed", "0"), {"order": "arrival", "seed": 0}, "order arrival, seed 0"),
    ],
)
def test_only_what_is_given_is_changed(sent: list[Any], given: tuple[str, ...], wanted: Any, said: str) -> None:
    done = lab_delay("set", "lab14-replica2", *given)
    assert (done.exit_code, done.stdout) == (0, f"lab14-replica2: {said}.\n")
    assert sent == [{"replica": "lab14-replica2", **wanted}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "Give at least one of --delay, --ack, --read, --order and --seed."),
        (("--delay", "soon"), "'soon' is neither milliseconds, nor a delay model, nor a .csv file"),
        (("--ack", "-1"), "ms must be a number from 0 to 600000"),
        (("--order", "random"), "'random' is not one of"),
        (("--seed", "-1"), "-1 is not in the range"),
    ],
)
def test_an_invalid_setting_is_rejected_and_nothing_is_sent(sent: list[Any], given: tuple[str, ...], said: str) -> None:
    done = lab_delay("set", "lab14-replica2", *given)
    assert (done.exit_code, said in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert sent == []


def test_an_error_of_the_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"detail": "There is no replica 'nine'; registered: lab14-replica1"}
    monkeypatch.setattr(client, "call", lambda *_: (404, problem))
    done = lab_delay("set", "nine", "--ack", "3000")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"Error: {problem['detail']}\n")
