"""Levels, acknowledgements and the checker on a real lab, under load and while things are changed and killed."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lab.checking import promises
from lab.checking.history import History, Plan, load
from lab.checking.workload import run
from lab.local.supervisor import Lab
from tests.integration.conftest import converge, frozen, metric, set_delays
from tests.support.http import POOL, ask, get, post
from tests.support.until import until


def check(lab: Lab, *options: str) -> tuple[int, dict[str, Any]]:
    """Run ``lab check --json`` on this lab; return its exit status and output."""
    line = [sys.executable, "-m", "lab", "check", "--json", "--data-dir", str(lab.data_dir), *options]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def verdicts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {verdict["guarantee"]: verdict for verdict in found["verdicts"]}


def workload(lab: Lab, plan: Plan) -> History:
    return run(plan, lab.client_url, os.urandom(4).hex(), stop=threading.Event(), on_step=lambda _: None)


def test_eventual_goes_back_and_the_checker_reports_it_without_failing(fresh: Lab, tmp_path: Path) -> None:
    saved, exported = tmp_path / "history.jsonl", tmp_path / "elle.json"
    set_delays(fresh, 20, 500)
    options = ("--level", "eventual", "--seconds", "2", "--save", str(saved), "--export", str(exported))
    status, found = check(fresh, *options)
    assert (status, found["kept"]) == (0, True)
    for guarantee in ("read_your_writes", "monotonic_reads"):
        verdict = verdicts(found)[guarantee]
        assert verdict["verdict"] == "violated"
        assert len(verdict["operations"]) == 2
        print(f"\n{guarantee}: {verdict['words']}")
    for guarantee in promises.PROMISES["eventual"]:
        assert verdicts(found)[guarantee]["verdict"] == "held", guarantee
    # The saved history gets the same verdict, and would violate a level with more promises.
    assert [verdict.as_json() for verdict in promises.judge(load(saved))] == [
        {name: value for name, value in verdict.items() if name != "promised"} for verdict in found["verdicts"]
    ]
    first, rest = saved.read_text().split("\n", 1)
    saved.write_text(first.replace('"level": "eventual"', '"level": "session"') + "\n" + rest)
    assert check(fresh, "--history", str(saved))[0] == 1
    events = json.loads(exported.read_text())
    assert {event["type"] for event in events} >= {"invoke", "ok"}
    assert len(events) == 2 * sum(
        count for kind, count in found["operations"].items() if kind.split()[0] in {"read", "write"}
    )


def test_level_session_keeps_its_promise_in_order_of_arrival(fresh: Lab) -> None:
    for replica in fresh.replica_urls:
        model = {"kind": "uniform", "low_ms": 0, "high_ms": 300}
        settings = {"replica": replica, "model": model, "order": "arrival"}
        post(f"{fresh.primary_url}/admin/replication-delay", settings)
    status, found = check(fresh, "--level", "session", "--seconds", "3", "--keys", "3")
    judged = verdicts(found)
    print(f"\n{found['operations']}, { ({name: one['violations'] for name, one in judged.items()}) }")
    assert (status, found["kept"], found["plan"]["order"]) == (0, True, "arrival")
    for guarantee in promises.promised(Plan("session", order="arrival")):
        assert judged[guarantee]["verdict"] == "held", judged[guarantee]
    assert judged["consistent_prefix"]["verdict"] == "violated", "a replica shows what is beyond its position"
    assert judged["consistent_prefix"]["promised"] is False


@pytest.mark.parametrize(("r", "w"), [(1, 1), (1, 2)])
def test_quorums_that_overlap_promise_to_show_own_writes(fresh: Lab, r: int, w: int) -> None:
    set_delays(fresh, 20, 200)
    options = ("--level", "quorum", "--r", str(r), "--w", str(w), "--seconds", "3", "--sessions", "5", "--keys", "3")
    status, found = check(fresh, *options)
    own_writes = verdicts(found)["read_your_writes"]
    print(
        f"\nr={r} w={w}: {found['operations']}, {own_writes['violations']} of {own_writes['tested']} lack the own write"
    )
    assert (status, found["kept"], found["plan"]["n"]) == (0, True, 2)
    assert (own_writes["promised"], own_writes["verdict"]) == ((True, "held") if r + w > 2 else (False, "violated"))


def test_acks_return_with_the_replicas_delays(fresh: Lab) -> None:
    set_delays(fresh, 50, 800)
    for acks, delay_ms in ((1, 50), (2, 800)):
        started = time.perf_counter()
        found = post(f"{fresh.primary_url}/data?acks={acks}", {"key": "k", "value": acks})
        took_ms = (time.perf_counter() - started) * 1000
        print(f"\nacks={acks}: {took_ms:.1f} ms with {delay_ms} ms")
        assert found["acknowledged_by"] == ["lab14-replica1", "lab14-replica2"][:acks]
        assert took_ms >= delay_ms
    version = get(f"{fresh.primary_url}/version")["version"]
    assert ask("POST", f"{fresh.primary_url}/data?acks=3", {"key": "k", "value": 1})[0] == 400
    assert get(f"{fresh.primary_url}/version")["version"] == version
    set_delays(fresh, 50, 30_000)
    found = post(f"{fresh.primary_url}/data?acks=2&timeout_ms=1000", {"key": "k", "value": 1})
    assert (found["acks_reached"], found["acknowledged_by"]) == (1, ["lab14-replica1"])


def test_invalid_tokens_are_rejected_immediately_with_the_reason(fresh: Lab) -> None:
    before = post(f"{fresh.client_url}/write", {"key": "k", "value": 1})["token"]
    post(f"{fresh.primary_url}/admin/reset")
    epoch = get(f"{fresh.primary_url}/version")["epoch"]
    for token, status, said in (
        (before, 412, "earlier epoch"),
        ("garbage", 400, "a position looks like"),
        (f"{epoch}-1000", 400, "never issued"),
    ):
        url = f"{fresh.client_url}/read/k?level=session&timeout_ms=30000"
        started = time.perf_counter()
        answer = POOL.request("GET", url, headers={"Lab-Position": token})
        took_ms = (time.perf_counter() - started) * 1000
        print(f"\n{token}: {answer.status} in {took_ms:.1f} ms")
        assert (answer.status, said in answer.json()["detail"]) == (status, True)
        assert took_ms < 15_000, "it did not wait for the position"


def test_a_cookie_carries_the_session_from_the_write_to_the_read(fresh: Lab) -> None:
    set_delays(fresh, 400, 400)
    answer = POOL.request("POST", f"{fresh.client_url}/write", body=b'{"key": "k", "value": "mine"}')
    cookie = answer.headers["Set-Cookie"].split(";")[0]
    url = f"{fresh.client_url}/read/k?level=session&replica=lab14-replica1"
    found = POOL.request("GET", url, headers={"Cookie": cookie}).json()
    assert (found["value"], found["source"]) == ("mine", "lab14-replica1")
    assert found["waited_ms"] > 0
    converge(fresh)


def test_staleness_counts_what_the_replica_lacked_when_it_was_read(fresh: Lab) -> None:
    set_delays(fresh, 20, 10_000)
    for number in range(3):
        post(f"{fresh.client_url}/write", {"key": "k", "value": number})
    time_of_write = time.monotonic()
    found = until(lambda: ask("GET", f"{fresh.client_url}/read/k?replica=lab14-replica2")[1])
    assert (found["stale"], found["behind_versions"]) == (True, 3)
    assert found["stale_ms"] < 10_000
    assert found["stale_ms"] >= (time.monotonic() - time_of_write) * 1000 - 50


def violations(lab: Lab) -> dict[str, float]:
    return metric(lab.client_url, "ec_session_violations_total")


def test_tokens_and_cookies_of_another_lab_are_rejected_and_not_counted(fresh: Lab) -> None:
    token = post(f"{fresh.client_url}/write", {"key": "k", "value": 1})["token"]
    issuer = token.partition(".")[2]
    before = violations(fresh)
    read = f"{fresh.client_url}/read/k?level="
    for level in ("session", "eventual"):
        answer = POOL.request("GET", read + level, headers={"Lab-Position": "1-900.0d15ea5e"})
        assert (answer.status, f"another lab; this is lab {issuer}" in answer.json()["detail"]) == (412, True)
    written = POOL.request(
        "POST",
        f"{fresh.client_url}/write",
        headers={"Lab-Position": "1-900.0d15ea5e"},
        body=b'{"key": "k", "value": 2}',
    )
    assert (written.status, written.json()["outcome"]) == (412, "not_applied")
    for foreign in ("lab_session_0d15ea5e=9-900.9-900", "lab_session=9-900.9-900"):
        assert POOL.request("GET", f"{read}strong", headers={"Cookie": foreign}).status == 200
        answer = POOL.request("GET", f"{read}session", headers={"Cookie": foreign})
        assert (answer.status, "Start a new session" in answer.json()["detail"]) == (412, True)
        own = answer.headers["Set-Cookie"].split(";")[0]
        converge(fresh)
        assert POOL.request("GET", f"{read}session", headers={"Cookie": f"{foreign}; {own}"}).status == 200
    POOL.request("GET", f"{read}eventual", headers={"Lab-Position": "9-900"})
    assert violations(fresh) == before


def test_a_session_that_only_lacks_its_own_write_has_not_gone_back(fresh: Lab) -> None:
    set_delays(fresh, 20, 10_000)
    before = violations(fresh)
    cookie = POOL.request("POST", f"{fresh.client_url}/write", body=b'{"key": "k", "value": 1}').headers["Set-Cookie"]
    for _ in range(2):
        url = f"{fresh.client_url}/read/k?level=eventual&replica=lab14-replica2"
        answer = POOL.request("GET", url, headers={"Cookie": cookie.split(";")[0]})
        cookie = answer.headers["Set-Cookie"]
    found = violations(fresh)
    assert found['{guarantee="read_your_writes"}'] == before['{guarantee="read_your_writes"}'] + 2
    assert found['{guarantee="monotonic_reads"}'] == before['{guarantee="monotonic_reads"}']


@pytest.mark.alone
@pytest.mark.parametrize("level", ["eventual", "prefix", "session"])
def test_a_stopped_primary_delays_no_read_that_does_not_need_it(fresh: Lab, level: str) -> None:
    token = post(f"{fresh.client_url}/write", {"key": "k", "value": 1})["token"]
    converge(fresh)
    with frozen(fresh.pids["lab14-primary"]):
        for number in range(3):
            started = time.perf_counter()
            answer = POOL.request("GET", f"{fresh.client_url}/read/k?level={level}", headers={"Lab-Position": token})
            felt_ms = (time.perf_counter() - started) * 1000
            found = answer.json()
            print(f"\n{level}, read {number}: felt {felt_ms:.1f} ms, waited_ms {found['waited_ms']}")
            assert (answer.status, found["value"], found["stale"]) == (200, 1, None)
            assert felt_ms < 1500, "a node that hangs is given 2 s to answer"
            assert felt_ms - found["waited_ms"] < 500


@pytest.mark.needs("minutes")
def test_the_commands_in_the_document_print_the_cost_of_a_level(fresh: Lab) -> None:
    document = (Path(__file__).parents[2] / "docs/guarantees.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\| `lab check (.*?)` \|", document, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        status, found = check(fresh, *command.split(), "--seconds", "1")
        assert (status, found["kept"]) == (0, True)
        print(f"\n{command}: {found['took_ms']['read']}")
        assert found["took_ms"]["read"]["p50"] > 0
