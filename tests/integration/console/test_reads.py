"""Reads on the lanes, and pages without a free event stream."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import running_lab
from tests.integration.console.conftest import text, waited
from tests.support.http import POOL, get
from tests.support.until import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]

THREADS = 16
# The pixels in the color of stale reads: the time at each, by the picture's scale, and its height. They are null until
# there are some in two lanes.
MARKS = """() => {
    const canvas = document.getElementById("lanes");
    const probe = document.createElement("canvas").getContext("2d");
    probe.fillStyle = getComputedStyle(canvas).getPropertyValue("--stale").trim();
    probe.fillRect(0, 0, 1, 1);
    const color = probe.getImageData(0, 0, 1, 1).data;
    const [left, right, start, end] =
        ["left", "right", "startMs", "endMs"].map((name) => Number(canvas.dataset[name]));
    const scale = canvas.width / canvas.clientWidth;
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const isStale = (at) =>
        data[at + 3] > 80 && [0, 1, 2].every((part) => Math.abs(data[at + part] - color[part]) < 12);
    const marks = [];
    for (let row = 0; row < height; row += 1)
        for (let column = Math.ceil(left * scale); column < width; column += 1)
            if (isStale(4 * (row * width + column))) marks.push([column / scale, row / scale]);
    const apart = marks.length && marks.at(-1)[1] - marks[0][1] > height / scale / 4;
    return apart ? marks.map(([x, y]) => [start + ((x - left) / (right - left)) * (end - start), y]) : null;
}"""


def test_the_stale_reads_of_write_and_read_are_on_the_lanes_within_500_ms(page: Page, fresh: Lab) -> None:
    assert page.evaluate(MARKS) is None
    line = ["curl", "-s", "-X", "POST", "-H", "Content-Type: application/json", "-d", '{"key": "k", "value": 1}']
    line.append(f"{fresh.client_url}/write-and-read")
    asked_at = time.time() * 1000
    done = subprocess.run(line, check=True, capture_output=True, timeout=10)
    answered_at = time.time() * 1000
    marks: list[Any] = page.wait_for_function(MARKS, timeout=5000).json_value()
    shown_after_ms = time.time() * 1000 - answered_at
    assert json.loads(done.stdout)["stale_read_count"] == 2
    between = sum(y for _, y in (marks[0], marks[-1])) / 2
    for lane in ([at for at, y in marks if y < between], [at for at, y in marks if y > between]):
        middle = sorted(lane)[len(lane) // 2]
        print(f"read {middle - asked_at:.0f} ms after the request, which took {answered_at - asked_at:.0f} ms")
        assert asked_at - 40 < middle < answered_at + 40  # a mark is some pixels wide, and ends with a number
    print(f"shown after {shown_after_ms:.0f} ms")
    assert shown_after_ms < 500


def test_a_page_without_a_free_stream_says_why_and_connects_when_one_is_free(browser: Browser, tmp_path: Path) -> None:
    with running_lab(tmp_path, environment={"LAB_THREADS": str(THREADS)}) as lab, ExitStack() as stack:
        listeners = [
            stack.enter_context(POOL.request("GET", f"{lab.client_url}/events", preload_content=False))
            for _ in range(THREADS // 2)
        ]
        page = browser.new_page()
        page.goto(f"{lab.client_url}/")
        waited(page, lambda: "All 8 event streams of this lab are in use" in text(page, "#connection"))
        assert get(f"{lab.client_url}/status")["replicas"]  # other requests are answered
        for one in listeners[:2]:
            one.close()
        page.wait_for_selector("#connection[data-state=open]", timeout=30_000)
        until(lambda: page.wait_for_timeout(100) or text(page, "#connection") == "Live", 30)
        page.close()
