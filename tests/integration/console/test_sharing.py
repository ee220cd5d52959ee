"""A moment that is saved, linked to, and shown again without a lab."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import running_lab, set_delays
from tests.integration.console.conftest import OTHER, REPLICA, Seen, go, set_ack_delays, text, waited, without_lab
from tests.integration.console.test_layout import CUT_OFF, SIZES, WALLS, no_serious_violation
from tests.support.http import ask, post
from tests.support.processes import foreground

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]
VIEW = {"width": 1366, "height": 768}
STYLES = re.compile(r'data-style="([^"]+)"')


def busy(lab: Lab, seconds: float = 2.5) -> None:
    """Writes, reads and acknowledgements: some arrived, some on their way."""
    set_delays(lab, 200, 900)
    set_ack_delays(lab, 100, 700)
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        post(f"{lab.client_url}/write-and-read", {"key": f"k{number % 3}", "value": number})
        ask("GET", f"{lab.client_url}/read/k{number % 3}?level=eventual&replica={OTHER}")


def saved(page: Page, what: str) -> str:
    """Save the picture or the events, and return the content of the file."""
    page.evaluate("document.getElementById('save').open = true")
    with page.expect_download() as download:
        page.click(f"#save-{what}")
    page.evaluate("document.getElementById('save').open = false")
    return Path(download.value.path()).read_text(encoding="utf-8")


def link(page: Page) -> str:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("document.getElementById('save').open = true")
    page.click("#copy-link")
    waited(page, lambda: text(page, "#saved") in {"Link copied.", "Copy this link:"})
    found = page.input_value("#link")
    page.evaluate("document.getElementById('save').open = false")
    return found or str(page.evaluate("navigator.clipboard.readText()"))


def step_back(page: Page, seconds: float) -> None:
    page.evaluate(
        "(value) => { const back = document.getElementById('back'); back.value = value;"
        " back.dispatchEvent(new Event('input')); }",
        seconds,
    )


@contextmanager
def replayed(events: str, tmp_path: Path) -> Iterator[str]:
    """The address of a page that shows these events without a lab."""
    file = tmp_path / "saved.jsonl"
    file.write_text(events, encoding="utf-8")
    line = [sys.executable, "-m", "lab", "watch", "--replay", str(file), "--page"]
    with foreground(line) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        yield re.findall(r"http://127\.0\.0\.1:\d+/\?replay", said)[0]


def opened(browser: Browser, url: str, state: str = "replay") -> Page:
    page = browser.new_page(viewport=VIEW)
    page.goto(url)
    page.wait_for_selector(f"#connection[data-state={state}]")
    return page


def test_a_saved_moment_looks_the_same_without_the_lab(browser: Browser, seen: Seen, tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab:
        page = browser.new_page(viewport=VIEW)
        go(page, f"{lab.client_url}/")
        busy(lab)
        page.click("#pause")
        moments = []
        for seconds in (0, 1.5):
            step_back(page, seconds)
            moments.append((link(page).partition("?")[2], saved(page, "picture")))
        step_back(page, 0)
        state = text(page, "#now tbody")
        events = saved(page, "events")
        page.close()
    styles = set(STYLES.findall(moments[0][1]))
    assert {"applied here", "in flight", "acknowledged here", "acknowledgement in flight", "stale"} <= styles
    assert moments[0][1] != moments[1][1]
    assert ">0 s<" in moments[0][1]
    assert ">now<" not in moments[0][1]
    with replayed(events, tmp_path) as url:
        replay = browser.new_page(viewport=VIEW)
        seen.watch(replay)
        paths: set[str] = set()
        replay.on("request", lambda request: paths.add("/" + request.url.split("/", 3)[3].partition("?")[0]))
        for query, picture in moments:
            replay.goto(f"{url}&{query}")
            waited(replay, lambda: text(replay, "#connection") == "Replay")
            assert replay.get_attribute("#pause", "aria-pressed") == "true"
            assert saved(replay, "picture") == picture
        replay.goto(f"{url}&{moments[0][0]}")
        waited(replay, lambda: text(replay, "#now tbody") == state)
        assert saved(replay, "events") == events
        # From the start to the end at its own speed.
        replay.goto(url)
        waited(replay, lambda: text(replay, "#connection") == "Replay")
        assert replay.get_attribute("#pause", "aria-pressed") == "false"
        waited(replay, lambda: replay.get_attribute("#pause", "aria-pressed") == "true")
        assert saved(replay, "picture") == moments[0][1]
        step_back(replay, 1.5)
        assert saved(replay, "picture") == moments[1][1]
        assert replay.locator("#scenes-toggle").is_disabled()
        assert "controls and scenes need a lab" in text(replay, "#controls")
        assert not replay.locator("#write-form").is_visible()
        assert {path for path in paths if not path.startswith("/console/")} == {"/", "/recording"}
        replay.close()
    assert seen.errors == []


@pytest.mark.parametrize("seconds_back", [0, 2])
def test_a_link_opens_the_page_at_the_same_moment(page: Page, browser: Browser, fresh: Lab, seconds_back: int) -> None:
    page.set_viewport_size(VIEW)  # type: ignore[arg-type]
    page.select_option("#span", "5")
    busy(fresh, 6 + seconds_back)  # what was before the page, such as the reset, is out of the picture then
    page.click("#pause")
    step_back(page, seconds_back)
    address, picture = link(page), saved(page, "picture")
    assert re.fullmatch(rf"{re.escape(fresh.client_url)}/\?at=\d+&span=5", address)
    other = opened(browser, address, "open")
    waited(other, lambda: other.get_attribute("#pause", "aria-pressed") == "true")
    assert link(other) == address
    waited(other, lambda: saved(other, "picture") == picture)
    # The moment of a page that has just been opened began with it.
    assert text(other, "#notice") == "" or re.fullmatch(
        r"Only the last \d\.\d s before this moment are kept\.", text(other, "#notice")
    )
    other.click("#pause")
    waited(other, lambda: int(link(other).partition("at=")[2].partition("&")[0]) > int(address[-20:-7]) + 1000)
    other.close()


def test_a_message_that_arrives_after_the_pause_belongs_to_the_moment_if_it_was_sent_before(page: Page) -> None:
    found = page.evaluate("""async () => {
        const moment = await import("/console/moment.js");
        document.getElementById("pause").click();
        const { timeline, end } = moment.shown();
        const write = (position, at_ms) => JSON.stringify({
            now_ms: at_ms, writes: [{ position, op: "set", key: "k", value: "1", at_ms }] });
        moment.take(write("9-1", end - 1));
        moment.take(write("9-2", end + 1));
        moment.take(JSON.stringify({ now_ms: end + 120_000 })); // after which the present has forgotten both
        const ours = ({ list }) => list.map(({ position }) => position).filter((position) => position[0] === "9");
        return [moment.shown().end === end, ours(timeline), ours(moment.live)];
    }""")
    assert found == [True, ["9-1"], []]


NOT_KEPT = "This moment is no longer kept: the lab keeps the last minute, while a page is open."
NO_MOMENT = [
    ("1000", NOT_KEPT),
    ("999999999999999", "This moment has not come yet."),
    ("", "This link has no valid moment: “” is not a time in milliseconds."),
    ("-1", "This link has no valid moment: “-1” is not a time in milliseconds."),
    ("1e3", "This link has no valid moment: “1e3” is not a time in milliseconds."),
    (f"<b>{'9' * 100}", f"This link has no valid moment: “<b>{'9' * 37}” is not a time in milliseconds."),
]


def test_a_link_to_no_moment_says_so_and_shows_the_present(page: Page, browser: Browser, fresh: Lab) -> None:
    other = browser.new_page()
    for at, said in NO_MOMENT:
        other.goto(f"{fresh.client_url}/?at={at}&span=7")
        waited(other, lambda: text(other, "#notice") == said)  # noqa: B023
        assert (other.get_attribute("#pause", "aria-pressed"), other.input_value("#span")) == ("false", "10")
        waited(other, lambda: REPLICA in text(other, "#now tbody"))
    other.close()


GOOD = json.dumps({"now_ms": 1000, "writes": [{"position": "1-1", "op": "set", "key": "k", "at_ms": 990}]})
STATE = {"replica_id": "r", "applied_position": "1-0", "heartbeat_at": "", "delay_ms": 1, "faults": []}
BROKEN: list[tuple[str, str]] = [
    ("", "no message in it"),
    ("{", "line 1: not JSON"),
    (f"{GOOD}\n\nnonsense", "line 3: not JSON"),
    (f"{GOOD}\n[1]", "line 2: not a message of the event feed: now_ms is not a number"),
    (f"{GOOD}\nnull", "line 2: not a message of the event feed: now_ms is not a number"),
    (f'{GOOD}\n{{"now_ms": 1e999}}', "line 2: not a message of the event feed: now_ms is not a number"),
    (f'{GOOD}\n{{"now_ms": 2, "reads": 5}}', "line 2: not a message of the event feed: reads is not a list"),
    (
        f'{GOOD}\n{{"now_ms": 2, "writes": [{{"position": "x"}}]}}',
        "line 2: not a message of the event feed: position in writes is missing or wrong",
    ),
    (
        json.dumps({"now_ms": 2, "state": [STATE | {"lag_ms": "1"}]}),
        "line 1: not a message of the event feed: lag_ms in state is missing or wrong",
    ),
]


@pytest.fixture
def bare(browser: Browser) -> Iterator[Page]:
    """The page without a lab, which shows a recording of one message."""
    with without_lab(f"{GOOD}\n") as url:
        found = opened(browser, url)
        yield found
        found.close()


def test_a_broken_file_is_refused_with_its_line(bare: Page) -> None:
    waited(bare, lambda: text(bare, "#connection") == "Replay")
    for lines, why in BROKEN:
        file = {"name": "saved.jsonl", "mimeType": "text/plain", "buffer": lines.encode()}
        bare.set_input_files("#recording", file)  # type: ignore[arg-type]
        waited(bare, lambda: text(bare, "#replay-error") == f"saved.jsonl cannot be shown: {why}.")  # noqa: B023
        assert text(bare, "#connection") == "Replay"  # what was shown before is still there
        bare.set_input_files("#recording", {**file, "buffer": GOOD.encode()})  # type: ignore[arg-type]
        waited(bare, lambda: not bare.locator("#replay-error").is_visible())


def test_a_file_is_bounded_in_size_and_messages(bare: Page, tmp_path: Path) -> None:
    waited(bare, lambda: text(bare, "#connection") == "Replay")
    for name, size, lines, why in (
        ("large", 64 * 2**20 + 1, "", "it has more than 64 MiB"),
        ("long", None, '{"now_ms":1}\n' * 100_001, "line 100001: more than 100000 messages"),
    ):
        file = tmp_path / name
        file.write_text(lines, encoding="utf-8")
        if size:
            os.truncate(file, size)
        bare.set_input_files("#recording", file)
        waited(bare, lambda: text(bare, "#replay-error") == f"{name} cannot be shown: {why}.")  # noqa: B023


def test_a_page_without_a_recording_offers_to_choose_one(page: Page, browser: Browser, fresh: Lab) -> None:
    other = opened(browser, f"{fresh.client_url}/?replay")
    waited(other, lambda: text(other, "#connection") == "Replay: choose a recording")
    paths: list[str] = []
    other.on("request", lambda request: paths.append(request.url))
    file = {"name": "saved.jsonl", "mimeType": "text/plain", "buffer": GOOD.encode()}
    other.set_input_files("#recording", file)  # type: ignore[arg-type]
    waited(other, lambda: text(other, "#connection") == "Replay")
    waited(other, lambda: other.get_attribute("#pause", "aria-pressed") == "true")  # it has ended
    other.wait_for_timeout(3000)
    assert paths == []
    other.close()


def test_a_moment_outside_a_recording_says_so(bare: Page) -> None:
    bare.goto(f"{bare.url}&at=5")
    waited(bare, lambda: text(bare, "#replay-error") == "The moment of this link is not in the recording.")


def recorded(page: Page, messages: list[dict[str, Any]], characters: int = 0) -> list[float]:
    """The times of the messages that a recording keeps; each message has so many characters more."""
    found: list[float] = page.evaluate(
        """async ([messages, characters]) => {
            const { Recording } = await import("/console/recording.js");
            const recording = new Recording();
            for (const message of messages) recording.add(JSON.stringify({ ...message, x: "x".repeat(characters) }));
            return recording.items.map(({ message }) => message.now_ms);
        }""",
        [messages, characters],
    )
    return found


def test_a_recording_keeps_a_minute_and_the_newest_state_before_it(bare: Page) -> None:
    times = (0, 1000, 2000, 3000, 63_500)
    assert recorded(bare, [{"now_ms": at} for at in times]) == [*times]  # nothing says what the replicas' state is
    with_state: list[dict[str, Any]] = [
        {"now_ms": at, "state": [STATE]} if at % 2000 == 0 else {"now_ms": at} for at in times
    ]
    assert recorded(bare, with_state) == [2000, 3000, 63_500]


def test_a_recording_is_bounded_in_number_and_size(bare: Page) -> None:
    assert recorded(bare, [{"now_ms": at} for at in range(1300)]) == [*range(100, 1300)]
    assert recorded(bare, [{"now_ms": at} for at in range(6)], 2**22) == [3, 4, 5]
    assert recorded(bare, [{"now_ms": 1}], 2**25) == [1]


def test_a_picture_as_svg_is_well_formed_whatever_a_name_contains(bare: Page) -> None:
    found = bare.evaluate("""async () => {
        const { svg } = await import("/console/svg.js");
        const name = ['<a href="x">&\\u0000\\ud800', 1, 2.345];
        const texts = { shape: "texts", style: "name", align: "right", texts: [name] };
        const line = { shape: "lines", style: "in flight", ends: [0, 0, 10.001, 5], clipped: true };
        const picture = { marks: [texts, line], clip: [0, 0, 10, 10], unit: 1 };
        return svg(picture, { width: 10, height: 20 }, { ink: "#111", write: "#222", paper: "#fff" });
    }""")
    root = ElementTree.fromstring(found)  # noqa: S314 - it is this test's own
    space = "{http://www.w3.org/2000/svg}"
    assert [one.text for one in root.iter(f"{space}text")] == ['<a href="x">&··']
    (path,) = root.iter(f"{space}path")
    assert (path.get("d"), path.get("stroke"), path.get("stroke-dasharray")) == ("M0 0L10 5", "#222", "4 4")


@pytest.mark.parametrize("query", ["replay", "replay&at=5", "at=5"])
def test_a_replay_and_a_notice_fit_the_screen(browser: Browser, fresh: Lab, query: str) -> None:
    page = browser.new_page()
    page.goto(f"{fresh.client_url}/?{query}")
    if "replay" in query:
        waited(page, lambda: text(page, "#connection") == "Replay: choose a recording")
        file = {"name": "saved.jsonl", "mimeType": "text/plain", "buffer": GOOD.encode()}
        page.set_input_files("#recording", file)  # type: ignore[arg-type]
        waited(page, lambda: text(page, "#connection") == "Replay")
    else:
        waited(page, lambda: text(page, "#notice") == NOT_KEPT)
        page.wait_for_selector(f"#delay-{OTHER}", state="attached")
    page.evaluate("document.getElementById('save').open = true")
    for size, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        # Charts are drawn again a moment after the window has changed.
        waited(page, lambda: page.evaluate(CUT_OFF) == [])
        if size in WALLS:
            assert page.evaluate("document.scrollingElement.scrollHeight <= innerHeight"), size
        no_serious_violation(page)
    page.close()


def test_a_moment_has_what_was_known_then_and_a_saved_one_has_the_same(bare: Page) -> None:
    found = bare.evaluate("""async () => {
        const { Recording, Replay } = await import("/console/recording.js");
        const recording = new Recording();
        const write = (number, at_ms) => ({ position: `1-${number}`, op: "set", key: "k", value: "1", at_ms });
        const times = [[1, 1000, 1000], [2, 59_000, 59_100], [3, 59_900, 61_002]]; // of the write and its message
        for (const [version, at, now_ms] of times)
            recording.add(JSON.stringify({ now_ms, writes: [write(version, at)] }));
        const versions = (replay) => replay.timeline.list.map(({ version }) => version);
        const known = [500, 1000, 59_100, 61_001, 61_002].map((at) => versions(new Replay(recording, at)));
        const saved = Recording.fromLines(recording.endingAt(61_001).toLines());
        return [known, versions(new Replay(saved, saved.end)), saved.end, new Replay(recording, 500).at];
    }""")
    # Before the first message, what it says is shown. After a minute a write is forgotten, with or without a message.
    assert found == [[[1], [1], [1, 2], [2], [2, 3]], [2], 61_001, 500]


def test_without_a_clipboard_the_link_is_shown_to_be_copied(bare: Page) -> None:
    waited(bare, lambda: bare.get_attribute("#pause", "aria-pressed") == "true")
    bare.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    bare.click("#save summary")
    bare.click("#copy-link")
    waited(bare, lambda: text(bare, "#saved") == "Copy this link:")
    assert bare.evaluate("getSelection().toString()") == f"{bare.url}&at=1000&span=10"
    assert not bare.locator("#link").is_editable()
