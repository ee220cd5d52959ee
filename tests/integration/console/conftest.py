"""The console in headless Chromium, and steps on its page."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.local.supervisor import Lab
from lab.page import server
from tests.integration.conftest import set_delays
from tests.support import chromium
from tests.support.http import post

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

ROOT = Path(__file__).parents[3]
REPLICA, OTHER = "lab14-replica1", "lab14-replica2"


@pytest.fixture(scope="session")
def started_browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # installed only by the targets that run these tests

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium.path(), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def browser(started_browser: Browser) -> Iterator[Browser]:
    """Headless Chromium, without the pages of another module."""
    yield started_browser
    for context in started_browser.contexts:
        context.close()


@contextmanager
def without_lab(recording: str = "") -> Iterator[str]:
    """The address of a page without a lab, which shows this recording."""
    with server(recording.encode()) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://{running.host}:{running.port}/?replay"
        running.shutdown()


@pytest.fixture(scope="module")
def script(browser: Browser) -> Iterator[Page]:
    """A page on which tests of a module call functions of the console that need no lab and leave nothing behind."""
    with without_lab() as url:
        found = browser.new_page()
        found.goto(url)
        yield found
        found.close()


@pytest.fixture
def fresh(fresh: Lab) -> Lab:
    """The lab with visible delays."""
    set_delays(fresh, 500, 1500)
    return fresh


class Seen:
    """Console errors and requested hosts of a page."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.hosts: set[str] = set()

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def page(browser: Browser, seen: Seen, fresh: Lab) -> Iterator[Page]:
    """The connected console. Afterwards it must have no errors and must have sent requests only to the client."""
    found = browser.new_page(viewport={"width": 1280, "height": 1000})
    seen.watch(found)
    go(found, f"{fresh.client_url}/?pace=0.05")
    yield found
    assert seen.errors == []
    assert {host for host in seen.hosts if host} == {fresh.client_url.removeprefix("http://")}
    found.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The directory of screenshots; CI keeps it."""
    return ROOT / "build" / "screenshots" if "CI" in os.environ else tmp_path


def go(page: Page, url: str) -> None:
    """Open the console and wait until it is connected and has its forms."""
    page.goto(url)
    page.wait_for_selector("#connection[data-state=open]")
    page.wait_for_selector(f"#delay-{OTHER}", state="attached")


def set_ack_delays(lab: Lab, *delays_ms: float) -> None:
    """Set the acknowledgement delays of the replicas, in order."""
    for replica, ms in zip(lab.replica_urls, delays_ms, strict=True):
        post(f"{lab.primary_url}/admin/replication-delay", {"replica": replica, "ack_delay_ms": ms})


GUESSES = "#scene-guess button:enabled"
TOLD = """() => {
    const texts = [...document.querySelectorAll("#scene-text p")].map((one) => [one.className, one.textContent]);
    return { step: document.getElementById("scene-step").textContent, ...Object.fromEntries(texts) };
}"""


def play(page: Page, scene: int, guess: int = 0, timeout_seconds: float = 90) -> list[dict[str, str]]:
    """Play a scene to its end with the same guess each time; return the texts of its steps with their results."""
    page.click("#scenes-toggle")
    page.locator("#scene-buttons button").nth(scene).click()
    steps: dict[str, dict[str, str]] = {}

    def step() -> bool:
        if page.locator(GUESSES).count():
            page.locator(GUESSES).nth(guess).click()
        found = page.evaluate(TOLD)
        if "seen" in found:
            steps.setdefault(found["step"], found)
        return "end" in found

    waited(page, step, timeout_seconds)
    return list(steps.values())


def text(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text()


def shown_after_ms(page: Page, position: str, kind: str) -> dict[str, float]:
    """Return the time from commit to applied or acknowledged, by replica, from the table of latest writes."""
    page.evaluate("document.getElementById('writes').closest('details').open = true")
    row = page.locator(f"#writes tbody tr:has(td:text-is('{position}'))")
    row.wait_for()

    def times() -> dict[str, str] | None:
        headings = page.locator("#writes thead th").all_inner_texts()
        cells = dict(zip(headings, row.locator("td").all_inner_texts(), strict=True))
        found = {name.removesuffix(f" {kind}"): cell for name, cell in cells.items() if name.endswith(f" {kind}")}
        return found if all(cell.endswith(" ms") for cell in found.values()) else None

    return {name: float(cell.removesuffix(" ms")) for name, cell in waited(page, times).items()}


def waited(page: Page, condition: Any, timeout_seconds: float = 15) -> Any:
    """Return the first truthy result of the condition; the page keeps running in the meantime."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"last seen: {found!r}"
        page.wait_for_timeout(100)
    return found
