"""The admin token in the console: what is missing without it, a wrong one, and the right one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import running_lab
from tests.integration.console.conftest import OTHER, REPLICA, text, waited
from tests.support.http import ask

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120), pytest.mark.xdist_group("console token")]
TOKEN = "s3crét"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with an admin token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ADMIN_TOKEN", TOKEN)
        with running_lab(tmp_path_factory.mktemp("guarded"), replicas=2) as running:
            yield running


@pytest.fixture
def locked(browser: Browser, guarded: Lab) -> Iterator[Page]:
    """The console of that lab, in a tab without the token."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    found = context.new_page()
    errors: list[str] = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.goto(f"{guarded.client_url}/?pace=0.05")
    found.wait_for_selector("#token-form:visible", timeout=15_000)
    yield found
    assert errors == []
    context.close()


def enter(page: Page, token: str) -> None:
    page.fill("#token", token)
    page.click("#token-form [type=submit]")


def test_without_the_token_the_page_says_what_is_missing(locked: Page) -> None:
    assert "This lab has an admin token" in text(locked, "#token-text")
    for control in ("end-faults", "reset"):
        locked.evaluate("id => document.getElementById(id).click()", control)
        waited(
            locked,
            lambda control=control: "needs the admin token" in locked.locator(f"#{control} + .error").text_content(),
        )
    waited(locked, lambda: "No prediction: it needs the admin token" in locked.locator("#stale-note").text_content())
    for width, height in ((1920, 1080), (1366, 768)):
        locked.set_viewport_size({"width": width, "height": height})
        assert locked.evaluate("document.scrollingElement.scrollHeight <= innerHeight")
        assert locked.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    # Writes and reads do not need it.
    locked.evaluate("document.querySelector('button[value=write]').click()")
    waited(locked, lambda: "Position " in (locked.locator("#answer").text_content() or ""))
    assert locked.locator("#from option").count() == 3


def test_a_page_without_the_token_does_not_ask_again_and_again(locked: Page) -> None:
    asked: list[str] = []
    locked.on("request", lambda request: asked.append(request.url))
    locked.wait_for_timeout(4000)
    assert [url for url in asked if "/delays" in url or "/prediction" in url] == []


def test_a_wrong_token_says_so_and_is_not_kept(locked: Page) -> None:
    for token, words in (("wrong", "Wrong admin token"), ("two words", "no spaces"), ("日本", "Latin-1")):
        enter(locked, token)
        waited(locked, lambda words=words: words in text(locked, "#token-text"))
        assert locked.evaluate("sessionStorage.length") == 0
    assert locked.locator("#token").is_visible()


def test_the_controls_work_once_the_token_is_entered(locked: Page, guarded: Lab) -> None:
    with_token: set[str] = set()

    def hear(request: Request) -> None:
        if "authorization" in request.headers:
            with_token.add(request.url.split("/")[2])

    locked.on("request", hear)
    enter(locked, TOKEN)
    waited(locked, lambda: "accepted" in text(locked, "#token-text"))
    locked.wait_for_selector(f"#delay-{OTHER}", state="attached")
    form = f"#delay-{REPLICA}"
    locked.evaluate(
        "([form]) => { const { elements } = document.querySelector(form); elements.delay.value = 40;"
        " document.querySelector(form).requestSubmit(); }",
        [form],
    )
    waited(locked, lambda: "delay set to 40 ms" in (locked.locator("#changed").text_content() or ""))
    status, found = ask("GET", f"{guarded.client_url}/delays", None, Authorization=f"Bearer {TOKEN}")
    assert (status, sorted(found["delays"].values())[0]) == (200, 40)
    for control in ("end-faults", "reset"):
        locked.evaluate("id => document.getElementById(id).click()", control)
        words = {"end-faults": "All faults ended", "reset": "new epoch"}[control]
        waited(locked, lambda words=words: words in (locked.locator("#changed").text_content() or ""))
    waited(
        locked,
        lambda: (
            locked.locator("#stale-note").text_content() == ""
            or "prediction" not in (locked.locator("#stale-note").text_content() or "")
        ),
    )
    assert with_token == {guarded.client_url.removeprefix("http://")}

    # The tab keeps it, no other tab has it, and it can be forgotten.
    locked.reload()
    locked.wait_for_selector(f"#delay-{OTHER}", state="attached")
    other = locked.context.new_page()
    other.goto(guarded.client_url)
    other.wait_for_selector("#token:visible")
    other.close()
    locked.click("#token-forget")
    assert locked.evaluate("sessionStorage.length") == 0
    locked.wait_for_selector("#token:visible")
