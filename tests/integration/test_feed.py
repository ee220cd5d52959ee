"""The lab's events, followed as server-sent events and in a terminal."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import set_delays
from tests.support.http import POOL, ask, get, post
from tests.support.processes import foreground

REPLICA, OTHER = "lab14-replica1", "lab14-replica2"


def test_lab_watch_runs_until_ctrl_c(fresh: Lab) -> None:
    line = [sys.executable, "-m", "lab", "watch", "--client-url", fresh.client_url]
    terminal, its_end = pty.openpty()
    with foreground(line, stdin=its_end, stdout=its_end, stderr=its_end) as process:
        os.close(its_end)
        output = ""
        while REPLICA not in output:
            output += os.read(terminal, 65536).decode(errors="replace")
        process.send_signal(signal.SIGINT)
        returncode = process.wait(timeout=30)
    os.close(terminal)
    assert returncode == 0, output
    assert "Traceback" not in output


def test_lab_watch_fails_if_the_lab_does_not_answer() -> None:
    line = [sys.executable, "-m", "lab", "watch", "--client-url", "http://127.0.0.1:1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, "does not answer" in done.stderr) == (1, True)


def test_lab_watch_serves_the_page_of_a_recording_until_ctrl_c(tmp_path: Path) -> None:
    file = tmp_path / "recording.jsonl"
    file.write_text('{"now_ms": 1}\n', encoding="utf-8")
    with foreground([sys.executable, "-m", "lab", "watch", "--replay", str(file), "--page"]) as process:
        assert process.stdout is not None
        address = re.findall(r"(http://127\.0\.0\.1:\d+)/\?replay", process.stdout.readline())[0]
        assert POOL.request("GET", f"{address}/recording").data == file.read_bytes()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""


def listen(lab: Lab, last_id: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The feed's messages, with their IDs."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    answer = POOL.request("GET", f"{lab.client_url}/events", preload_content=False, headers=headers)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    lines = (line for chunk in answer.stream(65536) for line in chunk.decode().splitlines())
    name = ""
    try:
        for line in lines:
            if line.startswith("id: "):
                name = line[4:]
            if line.startswith("data: "):
                yield name, json.loads(line[6:])
    finally:
        answer.close()


def test_reads_on_behalf_of_others_are_in_the_feed_at_the_right_replicas_and_times(fresh: Lab) -> None:
    post(f"{fresh.client_url}/write-and-wait", {"key": "k", "value": "old"})
    set_delays(fresh, 60_000, 60_000)
    feed = listen(fresh)
    next(feed)  # the clock is measured

    def reads(method: str, path: str, body: Any = None) -> tuple[list[dict[str, Any]], float]:
        """The reads of one request, and the time from its answer to their message."""
        asked_at_ms = time.time() * 1000
        assert ask(method, f"{fresh.client_url}{path}", body)[0] == 200
        answered_at_ms = time.time() * 1000
        found: list[dict[str, Any]] = next(message["reads"] for _, message in feed if "reads" in message)
        for read in found:
            assert asked_at_ms - 5 < read.pop("at_ms") < answered_at_ms + 5
        return sorted(found, key=lambda read: str(read["source"])), time.time() * 1000 - answered_at_ms

    found, after_ms = reads("POST", "/write-and-read", {"key": "k", "value": "new"})
    head = get(f"{fresh.primary_url}/version")["version"]
    both = {"of": "write-and-read", "key": None, "version": head - 1, "level": None, "behind": 1}
    assert found == [{**both, "source": REPLICA}, {**both, "source": OTHER}]
    assert after_ms < 500
    found, _ = reads("GET", "/read-compare")
    replica = both | {"of": "read-compare"}
    primary = replica | {"source": "primary", "version": head, "behind": 0}
    assert found == [{**replica, "source": REPLICA}, {**replica, "source": OTHER}, primary]
    found, _ = reads("GET", f"/read/k?replica={OTHER}")
    at_level = {"of": "read", "source": OTHER, "key": "k", "version": head - 1, "level": "eventual", "behind": 1}
    assert found == [at_level]
    feed.close()


def test_curl_can_follow_the_feed_and_resume_it(fresh: Lab) -> None:
    set_delays(fresh, 20, 1000)  # applied in a later message than the write
    first = listen(fresh)
    name, message = next(first)
    assert message["now_ms"] == pytest.approx(time.time() * 1000, abs=5000)
    told: list[str] = []
    position, follows = "", False
    while position not in told or not follows:  # the feed can start to follow the log and the replicas after a message
        position = post(f"{fresh.primary_url}/data", {"key": "k", "value": "v"})["position"]
        name, message = next(first)
        told = [write["position"] for write in message.get("writes", [])]
        follows = follows or any(one["replica"] == OTHER for one in message.get("applied", []))
    first.close()
    later = listen(fresh, name)
    positions = []
    for _, message in later:
        positions += [one["position"] for one in message.get("applied", []) if one["replica"] == OTHER]
        assert position not in [write["position"] for write in message.get("writes", [])]
        if position in positions:
            break
    later.close()
