"""The console's layout in a real browser: on a wall, a laptop and a phone, with two and three replicas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import running_lab, set_delays
from tests.integration.console.conftest import OTHER, go, waited
from tests.support.http import get, post

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(180)]
WALLS = {"wall": (1920, 1080), "laptop": (1366, 768), "large-wall": (3840, 2160)}
SIZES = WALLS | {"phone": (390, 844)}
TABS = ("requests", "delays", "acks", "faults")
# The visible elements that reach beyond the window, or whose content is cut off. A value is shortened on purpose.
CUT_OFF = """() => {
    const all = [...document.querySelectorAll("body *")];
    const shown = all.filter((one) => one.checkVisibility() && !one.closest(".unseen, .sheet *"));
    const clips = (one) => getComputedStyle(one).overflowX !== "visible" && !one.matches(".value, .sheet");
    const beyond = shown.filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5);
    const within = shown.filter((one) => clips(one) && one.scrollWidth > one.clientWidth + 1 && one.clientWidth);
    return [...beyond, ...within].map((one) => `${one.tagName} ${one.id} ${one.className}`);
}"""
# The elements of a wall that would have to be scrolled, or that stand over the edge of their section.
SCROLLED = """() => {
    const all = [...document.querySelectorAll("main *")];
    const inner = all.filter((one) => one.checkVisibility() && !one.closest(".sheet, .unseen, .value"));
    const scrolls = (one) => getComputedStyle(one).overflowY !== "visible" && one.scrollHeight > one.clientHeight + 1;
    const bottom = (one) => one.getBoundingClientRect().bottom;
    const over = (one) => bottom(one) > bottom(one.closest("section")) + 0.5;
    return inner.filter((one) => scrolls(one) || over(one)).map((one) => `${one.tagName} ${one.id} ${one.className}`);
}"""
# The center of each lane, and the top and the bottom of each node's state.
LANES = """() => {
    const canvas = document.getElementById("lanes");
    const top = canvas.getBoundingClientRect().top;
    const rows = [...document.querySelectorAll("#now tbody tr")].map((row) => row.getBoundingClientRect());
    const lanes = canvas.dataset.lanes.split(",").map((lane) => top + Number(lane));
    return [lanes, rows.map((row) => [row.top, row.bottom])];
}"""
# The top and the bottom on the page, and the width.
BOX = """(id) => {
    const { top, bottom, width } = document.getElementById(id).getBoundingClientRect();
    return [top + scrollY, bottom + scrollY, width];
}"""
SMALLEST_FONT = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const sizes = [];
    while (texts.nextNode()) {
        const { parentElement: place } = texts.currentNode;
        if (!texts.currentNode.data.trim() || !place.checkVisibility()) continue;
        sizes.push(parseFloat(getComputedStyle(place).fontSize));
    }
    return Math.min(...sizes);
}"""
# Two writes and a read; replica1 has acknowledged the first, replica2 has not applied it.
PICTURE = """async (view) => {
    const { Timeline } = await import("/console/timeline.js");
    const { picture } = await import("/console/picture.js");
    const timeline = new Timeline();
    const state = { applied_position: "1-0", acknowledged_version: 0, live: true, ack_delay_ms: 500 };
    const writtenAt = [2000, 9000, ...new Array(view.more ?? 0).fill(9500)];
    timeline.take({
        now_ms: 10000,
        state: [{ ...state, replica_id: "r1", delay_ms: 1000 }, { ...state, replica_id: "r2", delay_ms: 4000 }],
        writes: writtenAt.map((at, index) => ({ position: `1-${index + 1}`, op: "set", at_ms: at })),
        applied: [{ position: "1-1", replica: "r1", applied_ms: 3000, applied_after_ms: 1000 }],
        acknowledged: [{ position: "1-1", replica: "r1", acknowledged_ms: 3500, acknowledged_after_ms: 1500 }],
        reads: [{ at_ms: 5000, source: "r2", key: "k", version: 3, behind: 2 }, ...(view.reads ?? [])],
    });
    const size = { width: 1000, height: 500, em: 16, turned: false };
    const [nodes, positions] = (view.chosen ?? [[], []]).map((chosen) => new Set(chosen));
    const times = { end: 10000, isLive: true, span: 10000 };
    const found = picture(timeline, { ...times, highlighted: { nodes, positions }, ...size, ...view });
    return { ...found, lanes: [...found.scale.across.values()] };
}"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with three replicas and visible delays."""
    with running_lab(tmp_path_factory.mktemp("three"), replicas=3) as running:
        set_delays(running, 500, 1500, 1000)
        yield running


# The size of the window and the number of replicas decide the layout, the scheme only the colors.
VIEWS = [(size, replicas, "light") for replicas in (2, 3) for size in SIZES]
VIEWS += [("laptop", 2, "dark"), ("phone", 2, "dark")]


@pytest.mark.parametrize(("size", "replicas", "scheme"), VIEWS)
def test_everything_is_in_its_place(
    browser: Browser, request: pytest.FixtureRequest, pictures: Path, size: str, replicas: int, scheme: Any
) -> None:
    lab: Lab = request.getfixturevalue({2: "fresh", 3: "three"}[replicas])
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    go(page, f"{lab.client_url}/")
    happen(lab)
    waited(page, lambda: page.locator("#now tbody tr").count() == 1 + len(lab.replica_urls))
    waited(page, lambda: page.locator("#percentiles").inner_text())
    waited(page, lambda: page.locator("#entries button").count() > 2)
    name = f"console-{size}-{len(lab.replica_urls)}-{scheme}"
    page.screenshot(path=pictures / f"{name}.png", full_page=size == "phone")
    if size in WALLS:
        everything_at_once(page, height)
    else:
        one_below_the_other(page)
    for tab in TABS:
        page.click(f"#tab-{tab}")
        assert page.evaluate(CUT_OFF) == [], tab
        assert size not in WALLS or page.evaluate(SCROLLED) == [], tab
        no_serious_violation(page)
    page.click("#scenes-toggle")
    assert page.evaluate(CUT_OFF) == []
    no_serious_violation(page)
    page.screenshot(path=pictures / f"{name}-scenes.png", full_page=size == "phone")
    page.click("#scenes-close")
    before = boxes(page)
    page.locator("#entries button").last.click()
    waited(page, lambda: page.locator("#entry-way tbody tr").count() == len(lab.replica_urls))
    assert boxes(page) == before
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate("(one => one.scrollWidth - one.clientWidth)(document.getElementById('entry'))") == 0
    strip, sheet = page.evaluate(BOX, "strip"), page.evaluate(BOX, "entry")
    assert size not in WALLS or strip[1] <= sheet[0], "the lanes and the strip stay visible"
    no_serious_violation(page)
    page.screenshot(path=pictures / f"{name}-entry.png")
    page.close()


def happen(lab: Lab) -> None:
    """Writes, stale reads, and a window that is complete."""
    post(f"{lab.client_url}/write-and-wait", {"key": "greeting", "value": "hello"})
    for number in range(6):
        post(f"{lab.client_url}/write", {"key": "greeting", "value": f"hello {number}"})
        get(f"{lab.client_url}/read/greeting?level=eventual")


def everything_at_once(page: Page, height: int) -> None:
    assert page.evaluate("document.scrollingElement.scrollHeight <= innerHeight")
    _, bottom, _ = page.evaluate(BOX, "story")
    assert 0.6 < bottom / height < 0.72, "the lanes have the upper two thirds"
    lanes, states = page.evaluate(LANES)
    assert len(lanes) == len(states)
    for lane, (top, below) in zip(lanes, states, strict=True):
        assert abs(lane - (top + below) / 2) < 0.02 * height, "a node's state is at the end of its lane"
    assert page.evaluate(SMALLEST_FONT) > height / 100


def one_below_the_other(page: Page) -> None:
    """The lanes, with time downwards, then the states, then the controls."""
    lanes, strip, states, controls = (page.evaluate(BOX, name) for name in ("picture", "strip", "now", "controls"))
    assert lanes[1] <= strip[0]
    assert strip[1] <= states[0]
    assert states[1] <= controls[0]
    top, bottom, width = lanes
    assert bottom - top > 1.5 * width
    assert page.evaluate("getComputedStyle(document.getElementById('lanes')).getPropertyValue('--turned')") == "1"


def no_serious_violation(page: Page) -> None:
    from axe_playwright_python.sync_playwright import Axe

    violations = Axe().run(page).response["violations"]
    serious = [one for one in violations if one["impact"] in {"serious", "critical"}]
    assert not serious, json.dumps(serious, indent=1)[:3000]


def boxes(page: Page) -> list[list[float]]:
    return [page.evaluate(BOX, name) for name in ("story", "controls", "stale")]


@pytest.mark.parametrize("size", SIZES)
def test_sheets_lie_over_the_page_and_escape_closes_them(browser: Browser, fresh: Lab, size: str) -> None:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height})
    go(page, f"{fresh.client_url}/")
    happen(fresh)
    waited(page, lambda: page.locator("#stale-table tbody tr").count())
    waited(page, lambda: not page.locator("#stale-note").inner_text())
    before = boxes(page)
    for summary in page.locator("summary").all():
        summary.click()
        assert page.locator("details[open]").count() == 1
        assert boxes(page) == before
        assert page.evaluate(CUT_OFF) == []
        no_serious_violation(page)
        page.keyboard.press("Escape")
        assert page.locator("details[open]").count() == 0
        assert summary.evaluate("one => one === document.activeElement")
    page.close()


def test_the_arrow_keys_go_through_the_tabs(page: Page) -> None:
    page.focus("#tab-requests")
    for tab in (*TABS[1:], TABS[0]):
        page.keyboard.press("ArrowRight")
        assert page.locator("[role=tab][aria-selected=true]").get_attribute("id") == f"tab-{tab}"
        assert page.evaluate("document.activeElement.id") == f"tab-{tab}"
        assert page.locator("[role=tabpanel]:visible").count() == 1
    page.keyboard.press("ArrowLeft")
    assert page.locator(f"#fault-{OTHER}").is_visible()


def test_the_scenes_stand_beside_the_lanes_and_can_be_closed(page: Page) -> None:
    *_, wide = page.evaluate(BOX, "lanes")
    assert not page.is_visible("#scenes")
    page.click("#scenes-toggle")
    assert page.get_attribute("#scenes-toggle", "aria-expanded") == "true"
    lanes, scenes = (page.locator(f"#{name}").bounding_box() for name in ("lanes", "scenes"))
    assert lanes is not None
    assert scenes is not None
    assert lanes["x"] + lanes["width"] < scenes["x"]
    assert lanes["width"] > wide / 2
    page.click("#scenes-close")
    assert not page.is_visible("#scenes")
    assert page.evaluate("document.activeElement.id") == "scenes-toggle"
    assert page.evaluate(BOX, "lanes")[2] == wide


def marks(found: dict[str, Any]) -> dict[str, Any]:
    """The marks by their style."""
    return {mark["style"]: mark for mark in found["marks"]}


def test_the_picture_has_a_mark_for_everything_at_its_time_and_lane(script: Page) -> None:
    found = script.evaluate(PICTURE, {})
    scale, shown = found["scale"], marks(found)
    x = [scale["first"] + (scale["last"] - scale["first"]) * at / 10 for at in range(11)]
    primary, first, second = found["lanes"]
    assert shown["write"]["centers"] == pytest.approx([x[9], primary, x[2], primary])
    assert shown["applied"]["ends"] == pytest.approx([x[2], primary, x[3], first])
    assert shown["acknowledged"]["ends"] == pytest.approx([x[3], first, (x[3] + x[4]) / 2, primary])
    overdue = primary + 0.97 * (second - primary)
    assert shown["in flight"]["ends"][-4:] == pytest.approx([x[2], primary, x[10], overdue])
    assert [text for text, *_ in shown["behind"]["texts"]] == ["\N{MINUS SIGN}2"]
    assert [text for text, *_ in shown["name"]["texts"]] == ["primary", "r1", "r2"]
    assert {"lane", "name", "tick"} == {style for style, mark in shown.items() if not mark.get("clipped")}


def test_a_read_is_missing_its_key_or_of_unknown_staleness_or_fresh(script: Page) -> None:
    read = {"at_ms": 5000, "source": "r1", "key": "k", "version": 0, "behind": 0}
    expected = {
        "missing": [read],
        "unknown": [read | {"behind": None}, read | {"key": None, "version": 3, "behind": None}],
        "fresh": [read | {"version": 1}, read | {"key": None}],
    }
    for style, reads in expected.items():
        for one in reads:
            shown = marks(script.evaluate(PICTURE, {"reads": [one]}))
            assert expected.keys() & shown.keys() == {style}, one
    assert [
        text for text, *_ in marks(script.evaluate(PICTURE, {"reads": expected["unknown"]}))["unknown"]["texts"]
    ] == [
        "?",
        "?",
    ]


def test_the_turned_picture_has_the_same_marks_with_time_downwards(script: Page) -> None:
    across, turned = (marks(script.evaluate(PICTURE, {"turned": turn})) for turn in (False, True))
    assert across.keys() == turned.keys()
    for style, places in {
        "write": "centers",
        "acknowledged here": "centers",
        "applied": "ends",
        "in flight": "ends",
    }.items():
        assert len(across[style][places]) == len(turned[style][places])
    second_x, second_y, first_x, first_y = turned["write"]["centers"]
    assert first_x == second_x
    assert first_y < second_y
    from_x, from_y, to_x, to_y = turned["applied"]["ends"]
    assert (from_x, from_y) == (first_x, first_y)
    assert from_x < to_x
    assert from_y < to_y


def test_highlighted_writes_and_lanes_are_drawn_in_a_style_of_their_own(script: Page) -> None:
    plain = marks(script.evaluate(PICTURE, {}))
    assert not any(style.startswith("highlighted") for style in plain)
    found = script.evaluate(PICTURE, {"chosen": [["r1"], ["1-1"]]})
    shown = marks(found)
    scale, (_, lane, _) = found["scale"], found["lanes"]
    assert shown["highlighted lane"]["ends"] == [scale["first"], lane, scale["last"], lane]
    for style in ("applied", "acknowledged", "acknowledged here"):  # of the first write, the only one that has arrived
        assert shown[f"highlighted {style}"] == shown[style] | {"style": f"highlighted {style}"}
    assert shown["highlighted write"]["centers"] == shown["write"]["centers"][2:]
    styles = [mark["style"] for mark in found["marks"]]
    assert styles.index("highlighted applied") > styles.index("stale")  # above everything else


def test_the_picture_leaves_out_the_oldest_of_too_many_writes(script: Page) -> None:
    assert script.evaluate(PICTURE, {"more": 398})["omitted"] == 0
    assert script.evaluate(PICTURE, {"more": 403})["omitted"] == 5


def test_every_style_has_a_color_of_the_page(script: Page) -> None:
    colors = script.evaluate(
        """async () => {
            const { STYLES } = await import("/console/picture.js");
            const look = getComputedStyle(document.body);
            return Object.values(STYLES).map(({ color }) => look.getPropertyValue(`--${color}`));
        }"""
    )
    assert all(colors)
