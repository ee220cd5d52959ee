"""The console's controls while the client service does not answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import set_delays
from tests.integration.console.conftest import OTHER, REPLICA, Seen, play, waited
from tests.support.http import get

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]


def test_a_scene_survives_one_unavailable_answer_to_each_request(page: Page, seen: Seen, fresh: Lab) -> None:
    set_delays(fresh, 20, 20)
    refused: set[str] = set()

    def once(route: Route) -> None:
        request = route.request
        kind = f"{request.method} {request.url.split('/')[3].split('?')[0]}"
        if kind in refused or "events" in kind or "console" in kind:
            return route.fallback()
        refused.add(kind)
        problem = {"title": "Unavailable", "status": 503, "detail": "Try again."}
        return route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(problem))

    page.route("**/*", once)
    play(page, 0)
    assert {"POST scenes", "POST delays", "POST write", "GET read", "DELETE scenes"} <= refused
    assert page.locator("#scene-buttons button:disabled").count() == 0
    page.unroute("**/*")
    seen.errors.clear()  # the browser reports each 503


def test_an_error_is_shown_beside_its_control_until_the_next_use(page: Page, seen: Seen, fresh: Lab) -> None:
    problem = {"title": "Unavailable", "status": 503, "detail": "The log does not answer."}
    body = json.dumps(problem)
    page.route("**/delays", lambda route: route.fulfill(status=503, content_type="application/problem+json", body=body))
    submit = "form => document.querySelector(form).requestSubmit()"
    page.evaluate(submit, f"#delay-{OTHER}")
    waited(page, lambda: page.locator(f"#delay-{OTHER} + .error").text_content() == "The log does not answer.")
    assert page.locator(f"#delay-{REPLICA} + .error").count() == 0
    page.unroute("**/delays")
    page.evaluate(submit, f"#delay-{OTHER}")
    waited(page, lambda: "delay set to" in (page.locator("#changed").text_content() or ""))
    assert page.locator(f"#delay-{OTHER} + .error").text_content() == ""
    seen.errors.clear()


def test_the_forms_appear_after_the_settings_were_unavailable(browser: Browser, fresh: Lab) -> None:
    page = browser.new_page()
    page.route("**/faults", lambda route: route.fulfill(status=503, content_type="text/plain", body="no"))
    page.goto(fresh.client_url)
    waited(page, lambda: "status 503" in (page.locator("#faults + .error").text_content(timeout=10_000) or ""))
    page.unroute("**/faults")
    page.wait_for_selector(f"#delay-{OTHER}", state="attached")
    assert get(f"{fresh.client_url}/faults")["replicas"].keys() == {REPLICA, OTHER}
    page.close()
