"""A failover of the log server in the console: lost entries, the notice, and the scene on a real lab with Sentinels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from broker.connection import connect
from lab.local.supervisor import Lab
from tests.integration.conftest import metric, running_lab
from tests.integration.console.conftest import go, play, text, waited
from tests.integration.console.test_layout import CUT_OFF, no_serious_violation
from tests.support.http import get

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(180), pytest.mark.xdist_group("high availability")]
LOG_SCENE = 8  # after those that every lab has
# Writes 1-1 to 1-3 at 1000, 2000 and 3000; the log ended at 1-1, and continues at 2-1 at 5000. The replica has applied
# 1-2, and is in the new epoch. `look` names what is returned; `early`: the epoch's
# entry is reported as applied before it is itself.
FAILED_OVER = """async ([origin, look, early]) => {
    const { Timeline } = await import("/console/timeline.js");
    const { stateAt, isDelivered } = await import("/console/progress.js");
    const { standing } = await import("/console/standing.js");
    const { picture } = await import("/console/picture.js");
    const { ways } = await import("/console/ways.js");
    const timeline = new Timeline(() => 0);
    const state = {
        replica_id: "r", live: true, acknowledged_version: 1, delay_ms: 500, order: "log", lag_versions: 0, faults: [],
        applied_position: "1-1", heartbeat_at: new Date(900).toISOString(),
    };
    timeline.take({ now_ms: 900, state: [state] });
    for (const version of [1, 2, 3]) {
        const write = { position: `1-${version}`, op: "set", key: "k", value: "1", at_ms: 1000 * version };
        timeline.take({ now_ms: write.at_ms, writes: [write] });
    }
    const applied = { replica: "r", position: "1-2", applied_ms: 2400, applied_after_ms: 400 };
    timeline.take({ now_ms: 2500, applied: [applied] });
    if (early) timeline.take({ now_ms: 5000, applied: [{ ...applied, position: "2-1", applied_ms: 5000 }] });
    timeline.take({ now_ms: 5000, writes: [{ position: "2-1", op: "epoch", key: "", value: origin, at_ms: 5000 }] });
    const entering = standing(timeline, "r", 5000);
    timeline.take({ now_ms: 6000, groups: [{ replica: "r", delivered: "2-1", at_ms: 5500 }],
        state: [{ ...state, applied_position: "2-1", heartbeat_at: new Date(5900).toISOString() }] });
    const of = (position) => timeline.writes.get(position);
    const view = { end: 6000, span: 10000, isLive: true, width: 800, height: 400, em: 16, turned: false };
    return {
        states: () => ["1-1", "1-2", "1-3", "2-1"].map((one) => stateAt(timeline, of(one), "r", 6000)),
        before: () => ["1-2", "1-3"].map((one) => stateAt(timeline, of(one), "r", 4900)),
        delivered: () => isDelivered(timeline, of("1-3"), "r", 6000),
        ways: () => ways(timeline, of("1-3"), "r", 6000).length,
        entering: () => entering,
        standing: () => standing(timeline, "r", 6000),
        crossed: () => picture(timeline, view).marks.find(({ style }) => style === "lost")?.ends.length ?? 0,
    }[look]();
}"""
NOTICE = """async ([breaks, end]) => {
    const { draw } = await import("/console/losses.js");
    draw({ breaks }, end);
    const place = document.getElementById("breaks");
    const found = [...place.children].map((one) => [one.className, one.textContent, one.childElementCount]);
    draw({ breaks: [] }, end);
    return found;
}"""
NASTY = "<img src=x onerror=\"document.title='hurt'\">"


@pytest.mark.parametrize(
    ("origin", "look", "expected"),
    [
        ('"1-1"', "states", ["acknowledged", "lost", "lost", "acknowledged"]),
        ('"1-1"', "before", ["applied", None]),  # not lost yet
        ('"1-1"', "delivered", None),
        ('"1-1"', "ways", 0),
        ('"1-1"', "crossed", 8),  # two lines
        ('"1-3"', "states", ["acknowledged"] * 4),
        ('"1-3"', "crossed", 0),
        ("", "crossed", 0),  # a reset
        ('"<b>"', "crossed", 0),
    ],
)
@pytest.mark.parametrize("early", [False, True])
def test_entries_after_the_end_of_an_epoch_are_lost(
    script: Page, origin: str, look: str, expected: Any, *, early: bool
) -> None:
    assert script.evaluate(FAILED_OVER, [origin, look, early]) == expected


@pytest.mark.parametrize("look", ["entering", "standing"])
def test_lost_entries_do_not_count_as_behind(script: Page, look: str) -> None:
    found = script.evaluate(FAILED_OVER, ['"1-1"', look])
    found["pending"] = found["pending"] or 0  # not in the replica's report here
    assert (found["version"], found["behind"], found["pending"]) == (1, 0, 0)


def test_the_notice_counts_and_names_lost_writes_for_five_minutes(script: Page) -> None:
    lost = {"kind": "lost", "at_ms": 1000, "count": "3", "positions": "1-7 to 1-9", "after": "1-6"}
    epoch = {"kind": "epoch", "at_ms": 900, "position": "2-6", "after": "1-6", "reason": NASTY}
    said = "The log lost 3 acknowledged writes: 1-7 to 1-9. It ended at 1-6 when another server took over."
    assert script.evaluate(NOTICE, [[epoch, lost], 1000]) == [
        ["epoch", f"The log ended at 1-6 and continues at 2-6, in a new epoch: {NASTY}.", 0],
        ["lost", said, 0],
    ]
    assert script.evaluate(NOTICE, [[epoch, lost], 999]) == script.evaluate(NOTICE, [[epoch], 999])
    assert script.evaluate(NOTICE, [[epoch, lost], 300_999]) == [["lost", said, 0]]
    assert script.evaluate(NOTICE, [[epoch, lost], 301_000]) == []
    one = {**lost, "count": "1", "positions": NASTY * 100}
    ((_, shown, elements),) = script.evaluate(NOTICE, [[one], 1000])
    assert (shown.startswith("The log lost 1 acknowledged write: <img"), len(shown), elements) == (True, 500, 0)


@pytest.fixture(scope="module")
def ha_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("ha"), ha=True) as started:
        yield started


def test_the_scene_shows_a_failover_with_and_without_copies(browser: Browser, ha_lab: Lab, pictures: Path) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    go(page, f"{ha_lab.client_url}/?pace=0.05")
    waited(page, lambda: page.locator("#scene-buttons button").count() == LOG_SCENE + 1)
    page.click("#tab-faults")
    assert page.locator("#fault-log option").all_inner_texts() == ["failover", "failback", "isolate-master"]
    assert page.evaluate(CUT_OFF) == []

    steps = play(page, LOG_SCENE, guess=2)
    print(*(one["seen"] for one in steps), sep="\n")
    page.screenshot(path=pictures / "failover.png")
    assert text(page, "#scene-text").endswith("Scene finished; what it changed is restored.")
    assert len(steps) == 5
    _, without, readers, copies, _ = (one["seen"] for one in steps)

    (kept,) = re.findall(r"it has (\d+) of the ten", without)
    (count, first, last) = re.findall(r"names (\d+) lost: (\S+) to (\S+)\.", without)[0]
    assert int(kept) + int(count) == 10
    assert metric(ha_lab.primary_url, "ec_lost_writes_total")[""] == int(count)
    (notice,) = get(f"{ha_lab.primary_url}/health")["notices"]
    assert f"{count} acknowledged writes, {first} to {last}:" in notice
    assert connect(ha_lab.redis_url).xrange("lab14:log", first, last) == []
    assert steps[1]["verdict"].startswith("Your guess was “All”; right is “")
    early, late = (re.findall(r"“(\w+)”", part) for part in readers.split("Afterwards"))
    assert (set(early) <= {"10", "old"}, set(late)) == (True, {"old"})  # a busy machine can be too late for the 10
    assert ("values that no longer exist" in readers) == ("10" in early)
    assert copies.startswith("0 of the ten were acknowledged; 10 were answered with 503 and the outcome “unknown”.")
    assert copies.endswith("It lost 0 acknowledged writes.")

    assert f"lost {count} acknowledged writes: {first} to {last}." in text(page, "#breaks .lost")
    assert page.locator(f"#entries button.lost code:text-is('{last}')").count() == 1
    assert page.evaluate(CUT_OFF) == []
    page.click("#pause")  # a saved or linked moment shows the same
    assert f"{first} to {last}" in text(page, "#breaks .lost")
    no_serious_violation(page)
    assert get(f"{ha_lab.client_url}/faults")["log"]["faults"] == []
    page.close()
