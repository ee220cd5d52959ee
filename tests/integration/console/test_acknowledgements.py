"""Acknowledgements in the console: their ways and marks, the delay's control, the state, and the scene."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import metric, set_delays
from tests.integration.console.conftest import OTHER, REPLICA, go, play, set_ack_delays, shown_after_ms, waited
from tests.support.http import get, post

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]

# The times at the centers of the rings on the primary's lane: columns of pixels in the color of acknowledgements, in
# the band above the lane, where the rings are without their lines.
RINGS = """() => {
    const canvas = document.getElementById("lanes");
    const probe = document.createElement("canvas").getContext("2d");
    probe.fillStyle = getComputedStyle(canvas).getPropertyValue("--acknowledged").trim();
    probe.fillRect(0, 0, 1, 1);
    const color = probe.getImageData(0, 0, 1, 1).data;
    const [left, right, top, start, end] =
        ["left", "right", "top", "startMs", "endMs"].map((name) => Number(canvas.dataset[name]));
    const scale = canvas.width / canvas.clientWidth;
    const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, Math.floor((top - 1) * scale));
    const isRing = (at) => data[at + 3] > 80 && [0, 1, 2].every((part) => Math.abs(data[at + part] - color[part]) < 12);
    const groups = []; // of neighboring columns
    for (let column = 0; column < width; column += 1) {
        let weight = 0;
        for (let at = 4 * column; at < data.length; at += 4 * width) if (isRing(at)) weight += data[at + 3];
        if (!weight) continue;
        if (groups.at(-1)?.last !== column - 1) groups.push({ weight: 0, sum: 0 });
        const group = groups.at(-1);
        group.last = column;
        group.weight += weight;
        group.sum += weight * (column + 0.5);
    }
    const share = ({ weight, sum }) => (sum / weight / scale - left) / (right - left);
    return groups.map((group) => start + share(group) * (end - start));
}"""
WAYS = """async ([{ applied, acknowledged, state }, end]) => {
    const { Timeline } = await import("/console/timeline.js");
    const { ways } = await import("/console/ways.js");
    const timeline = new Timeline();
    const item = { replica: "r", position: "1-1" };
    const before = { replica_id: "r", applied_position: "1-0", acknowledged_version: null, live: true };
    timeline.take({ now_ms: 3000, state: [{ ...before, delay_ms: 500, ack_delay_ms: 2000, ...state }] });
    timeline.take({
        now_ms: 3000,
        writes: [{ position: "1-1", op: "set", at_ms: 1000 }],
        applied: applied && [{ ...item, applied_ms: applied, applied_after_ms: applied - 1000 }],
        acknowledged: acknowledged && [
            { ...item, acknowledged_ms: acknowledged, acknowledged_after_ms: acknowledged - 1000 },
        ],
    });
    const found = ways(timeline, timeline.writes.get("1-1"), "r", end);
    return found.map(({ kind, from, to, share }) => [kind, from, to, Number(share.toFixed(3))]);
}"""
VERSION = """async ([reported, versions]) => {
    const { Timeline } = await import("/console/timeline.js");
    const timeline = new Timeline();
    const state = { replica_id: "r", applied_position: "1-9", acknowledged_version: reported };
    const times = { acknowledged_ms: 2000, acknowledged_after_ms: 9 };
    const acknowledged = versions.map((version) => ({ replica: "r", position: `1-${version}`, ...times }));
    timeline.take({ now_ms: 3000, state: [state], acknowledged });
    return timeline.acknowledgedVersion("r");
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_mark_of_an_acknowledgement_is_at_the_time_that_the_replica_reports(
    browser: Browser, fresh: Lab, scheme: Any
) -> None:
    page = browser.new_page(viewport={"width": 1920, "height": 900}, device_scale_factor=3, color_scheme=scheme)
    go(page, f"{fresh.client_url}/")
    set_ack_delays(fresh, 400, 900)
    position = post(f"{fresh.client_url}/write", {"key": "back", "value": 1})["position"]
    reported = {
        name: get(f"{url}/version?min_acknowledged={position}&timeout_ms=10000")
        for name, url in fresh.replica_urls.items()
    }
    shown = shown_after_ms(page, position, "acknowledged")
    page.click("#pause")
    rings = page.evaluate(RINGS)
    expected = [datetime.fromisoformat(found["acknowledged_at"]).timestamp() * 1000 for found in reported.values()]
    print(rings, expected, [ring - at for ring, at in zip(rings, sorted(expected), strict=False)])
    assert rings == pytest.approx(sorted(expected), abs=3)
    for name, found in reported.items():
        assert shown[name] == pytest.approx(found["acknowledged_after_ms"], abs=0.1)
    page.close()


def test_the_ways_of_a_write_end_where_it_has_arrived_or_is_now(script: Page) -> None:
    there = ["applied", 1000, 1500, 1]
    known: dict[str, Any] = {"applied": 1500, "acknowledged": 3500}
    assert script.evaluate(WAYS, [{}, 1250]) == [["applied", 1000, None, 0.5]]
    assert script.evaluate(WAYS, [{}, 9000]) == [["applied", 1000, None, 0.97]]  # overdue
    assert script.evaluate(WAYS, [{"applied": 1500}, 2000]) == [there, ["acknowledged", 1500, None, 0.25]]
    assert script.evaluate(WAYS, [known, 3500]) == [there, ["acknowledged", 1500, 3500, 1]]
    assert script.evaluate(WAYS, [known, 2500]) == [there, ["acknowledged", 1500, None, 0.5]]  # stepped back
    assert script.evaluate(WAYS, [known, 1100]) == [["applied", 1000, None, 0.2]]
    unknown_times = {"state": {"applied_position": "1-1", "acknowledged_version": 1}}
    assert script.evaluate(WAYS, [unknown_times, 3500]) == []
    assert script.evaluate(WAYS, [unknown_times | {"applied": 1500}, 3500]) == [there]


def test_the_acknowledged_version_follows_the_feed_without_gaps(script: Page) -> None:
    assert script.evaluate(VERSION, [3, []]) == 3
    assert script.evaluate(VERSION, [3, [4, 5, 7]]) == 5
    assert script.evaluate(VERSION, [None, [1, 2]]) is None


def test_current_state_splits_pending_entries(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 20, 600_000)
    set_ack_delays(fresh, 600_000, 0)
    position = post(f"{fresh.client_url}/write", {"key": "split", "value": 1})["position"]
    get(f"{fresh.replica_urls[REPLICA]}/version?min_position={position}&timeout_ms=5000")
    before, after = int(position.partition("-")[2]) - 1, int(position.partition("-")[2])
    # Version and acknowledged version; pending entries: all, waiting, and unacknowledged.
    expected = {REPLICA: [after, before, 1, 0, 1], OTHER: [before, before, 1, 1, 0]}

    def shown(replica: str) -> list[str]:
        row = page.locator(f"#now tbody tr:has(th:text-is('{replica}')) td").all_inner_texts()
        return row[:2] + row[5:8]

    waited(page, lambda: all(shown(replica) == list(map(str, row)) for replica, row in expected.items()))


SAMPLES = """() => {
    window.samples = [];
    const body = document.getElementById("now").tBodies[0];
    const numbers = (row) => [...row.cells].slice(1, 9).map((cell) => parseFloat(cell.textContent));
    new MutationObserver(() => window.samples.push([...body.rows].map(numbers))).observe(body, { childList: true });
}"""


def test_the_numbers_of_the_states_are_of_one_moment(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 300, 700)
    set_ack_delays(fresh, 200, 400)
    page.evaluate(SAMPLES)
    for number in range(60):
        post(f"{fresh.client_url}/write", {"key": "moment", "value": number})
        page.wait_for_timeout(50)
    samples = [rows for rows in page.evaluate("window.samples") if len(rows) == 3]
    splits = [rows[1:] for rows in samples if all(row[6] and row[7] for row in rows[1:])]
    assert splits, "no sample with entries that wait and others that are unacknowledged"
    for (head, *_), *replicas in samples:
        for version, acknowledged, behind, lag_ms, ack_lag_ms, pending, waiting, unacknowledged in replicas:
            assert version + behind == head
            assert pending == waiting + unacknowledged <= head - acknowledged  # less those not delivered yet
            assert ack_lag_ms >= lag_ms
            assert (lag_ms == 0) is (behind == 0)


def test_the_scene_of_redelivery_reports_what_the_replica_does(page: Page, fresh: Lab) -> None:
    set_ack_delays(fresh, 250, 350)
    said = [one["seen"] for one in play(page, 6)]
    shown = [
        found
        for one in said
        if (found := re.search(r"applied version (\d+) and acknowledged version (\d+): (\d+)", one))
    ]
    print(*said, sep="\n")
    before, after = [tuple(map(int, found.groups())) for found in shown]
    assert before[0] - before[1] == before[2] == 5
    assert after == before
    assert "digests are equal" in said[-1]
    assert set(get(f"{fresh.primary_url}/admin/replication-delays")["ack_delays"].values()) == {250, 350}
    assert sum(metric(fresh.replica_urls[OTHER], "ec_redeliveries_total").values()) >= 5
