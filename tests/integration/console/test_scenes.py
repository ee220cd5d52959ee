"""Guided scenes: every step by clicks, guesses, and a lab that is restored whatever becomes of the page."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import is_healthy, set_delays
from tests.integration.console.conftest import GUESSES, OTHER, go, play, text, waited
from tests.integration.console.test_layout import CUT_OFF, SCROLLED, SIZES, no_serious_violation
from tests.support.http import ask, get, post
from tests.support.until import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(600)]
ROUNDS = int(os.environ.get("SCENE_ROUNDS", "2"))
LEASE_SECONDS = 10
MODELS: dict[str, Any] = {
    "model": {"kind": "uniform", "low_ms": 50, "high_ms": 250},
    "ack_model": {"kind": "fixed", "ms": 70},
    "read_model": {"kind": "fixed", "ms": 3},
    "order": "arrival",
    "seed": 14,
}


def state(lab: Lab) -> dict[str, Any]:
    """The settings and active faults of every replica; of a fault that ends by itself, not when."""
    faults = {
        name: [(one["fault"], {**one["parameters"], "duration_ms": None}) for one in found.get("faults", ["unknown"])]
        for name, found in get(f"{lab.client_url}/faults")["replicas"].items()
    }
    return {"settings": get(f"{lab.primary_url}/admin/replication-delays"), "faults": faults}


def scene(lab: Lab) -> Any:
    return get(f"{lab.client_url}/scenes")["scene"]


@pytest.fixture(autouse=True)
def _no_scene_afterwards(lab: Lab) -> Iterator[None]:
    """End a scene whose page was closed, so that its restoration does not reach into the next test."""
    yield
    if found := scene(lab):
        ask("DELETE", f"{lab.client_url}/scenes/{found['id']}")


@pytest.fixture
def before(fresh: Lab) -> dict[str, Any]:
    """The lab with unusual settings and a fault."""
    post(f"{fresh.primary_url}/admin/replication-delay", {"replica": OTHER, **MODELS})
    post(f"{fresh.client_url}/faults", {"replica": OTHER, "fault": "duplicate", "probability": 0.1})
    return state(fresh)


def open_page(browser: Browser, lab: Lab, pace: float = 0.05, **options: Any) -> Page:
    """The page with its scenes, and with a clock that a test can move."""
    page = browser.new_page(**options)
    page.clock.install()
    go(page, f"{lab.client_url}/?pace={pace}")
    page.click("#scenes-toggle")
    return page


def begin(page: Page, number: int) -> None:
    page.locator("#scene-buttons button").nth(number).click()


def is_at(page: Page, step: int, phase: str) -> Any:
    """Wait for a phase of a step: the guess, or the result."""
    wanted = {"guess": GUESSES, "seen": "#scene-seen"}[phase]
    return waited(
        page, lambda: text(page, "#scene-step").startswith(f"Step {step} ") and page.locator(wanted).count(), 30
    )


def told(page: Page) -> str:
    return text(page, "#scene-text") + text(page, "#scene-guess")


@pytest.mark.parametrize("number", range(8))
def test_a_scene_runs_to_its_end_by_clicks_alone(
    browser: Browser, fresh: Lab, before: dict[str, Any], number: int
) -> None:
    page = browser.new_page()
    go(page, f"{fresh.client_url}/?pace=0.05")
    steps = play(page, number, number % 3)
    assert text(page, "#scene-text").endswith("Scene finished; what it changed is restored.")
    page.close()
    assert state(fresh) == before
    assert [one["step"] for one in steps] == [f"Step {at} of {len(steps)}" for at in range(1, len(steps) + 1)]
    guessed = [one for one in steps if "ask" in one]
    print(*(f"{one.get('ask', '')} {one['seen']} {one.get('verdict', '')}" for one in steps), sep="\n")
    assert guessed
    for one in steps:
        assert re.search(r"\d", one["seen"]), "a measured number"
        assert one["now"]
        assert one["look"]
    for one in guessed:
        assert re.fullmatch(r"Your guess was (right\.|“.+”; right is “.+”\.)", one["verdict"])


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_page_closed_at_a_random_step_is_restored(
    browser: Browser, fresh: Lab, before: dict[str, Any], seed: int
) -> None:
    chosen = random.Random(seed)
    page = open_page(browser, fresh, pace=0.2)
    begin(page, seed % page.locator("#scene-buttons button").count())

    def goes_on(until_ms: float = 0) -> bool:
        if page.locator(GUESSES).count():
            page.locator(GUESSES).nth(chosen.randrange(3)).click()
        return state(fresh) != before and page.evaluate("performance.now()") > until_ms

    waited(page, goes_on)
    close_at_ms = page.evaluate("performance.now()") + chosen.uniform(0, 6000)
    waited(page, lambda: goes_on(close_at_ms) or scene(fresh) is None)
    step, is_changed = text(page, "#scene"), state(fresh) != before
    if seed % 2:
        page.goto("about:blank")  # also hides the page, which must not prolong the lease
    else:
        page.close()
    until(lambda: scene(fresh) is None, LEASE_SECONDS + 10)
    assert state(fresh) == before, step
    page.close()
    print(f"{seed}: closed at {step!r}; changed: {is_changed}")


def test_back_and_next_show_earlier_steps_without_repeating_them(browser: Browser, fresh: Lab) -> None:
    page = open_page(browser, fresh, pace=1000)
    begin(page, 0)
    is_at(page, 1, "seen")
    first = told(page)
    page.click("#scene-next")
    is_at(page, 2, "guess")
    asked = told(page)
    page.click("#scene-back")
    assert told(page) == first
    assert page.locator("#scene-back").is_disabled()
    page.click("#scene-next")
    assert told(page) == asked
    assert page.locator("#scene-next").is_disabled()  # a guess is missing
    page.locator(GUESSES).nth(0).click()
    is_at(page, 2, "seen")
    second, head = told(page), get(f"{fresh.primary_url}/version")["position"]
    assert "✓" in second
    page.click("#scene-back")
    assert told(page) == first
    page.click("#scene-next")
    assert told(page) == second
    assert get(f"{fresh.primary_url}/version")["position"] == head
    page.click("#scene-next")
    is_at(page, 3, "guess")
    page.close()


def test_pause_reduced_motion_and_looking_back_hold_a_scene(browser: Browser, fresh: Lab) -> None:
    page = open_page(browser, fresh)
    page.emulate_media(reduced_motion="reduce")
    begin(page, 0)
    is_at(page, 1, "seen")
    assert not page.is_visible("#scene-pause")
    page.clock.fast_forward(60_000)
    is_at(page, 1, "seen")
    page.click("#scene-next")
    is_at(page, 2, "guess")
    page.click("#scene-back")
    page.emulate_media(reduced_motion="no-preference")
    page.clock.fast_forward(60_000)
    is_at(page, 1, "seen")
    page.click("#scene-next")
    page.click("#scene-pause")
    page.locator(GUESSES).nth(0).click()
    is_at(page, 2, "seen")
    page.clock.fast_forward(60_000)
    is_at(page, 2, "seen")
    assert text(page, "#scene-pause") == "Continue"
    page.click("#scene-pause")
    is_at(page, 3, "guess")
    page.close()


def test_a_scene_can_be_stopped_and_started_again(browser: Browser, fresh: Lab, before: dict[str, Any]) -> None:
    page = open_page(browser, fresh)
    for number, step in ((4, 2), (1, 1), (1, 1)):
        begin(page, number)
        is_at(page, step, "guess")
        page.click("#scene-stop")
        waited(page, lambda: "Scene stopped; what it changed is restored." in text(page, "#scene-text"))
        assert state(fresh) == before
        assert page.locator("#scene-buttons button:enabled").count() == 8
    page.close()


def test_the_right_answer_is_computed_from_what_was_measured(browser: Browser, fresh: Lab) -> None:
    set_delays(fresh, 20, 900)
    page = open_page(browser, fresh, pace=1000)
    page.route("**/delays", lambda route: route.fulfill(json={}))  # the scene's delays have no effect
    begin(page, 1)
    page.locator(GUESSES).nth(1).click()
    is_at(page, 1, "seen")
    assert "✓ About 1000 ms" in text(page, "#scene-guess")
    assert "Your guess was right." in text(page, "#scene-text")
    assert 500 < float(re.findall(r"The window was (\d+) ms", text(page, "#scene-text"))[0]) < 1250
    assert page.locator("#windows.spotlit").count() == 1
    page.click("#scene-stop")
    waited(page, lambda: page.locator(".spotlit").count() == 0)
    page.close()


def test_an_error_stops_a_scene_in_words(browser: Browser, fresh: Lab, before: dict[str, Any]) -> None:
    page = open_page(browser, fresh)
    problem = json.dumps({"status": 507, "detail": "The log is full."})
    page.route("**/write", lambda route: route.fulfill(status=507, content_type="application/json", body=problem))
    begin(page, 0)
    waited(page, lambda: "The scene failed: The log is full.; what" in text(page, "#scene-text"))
    assert state(fresh) == before
    page.close()


def test_a_hidden_page_holds_its_scene_for_four_minutes(browser: Browser, fresh: Lab, before: dict[str, Any]) -> None:
    page = open_page(browser, fresh)
    leases: list[str] = []
    page.on("request", lambda request: leases.append(request.url) if request.method == "PUT" else None)
    begin(page, 4)
    is_at(page, 1, "seen")
    page.evaluate(
        """Object.defineProperty(document, "hidden", { value: true });
        document.dispatchEvent(new Event("visibilitychange"))"""
    )
    assert waited(page, lambda: leases and leases[-1].endswith("?lease_ms=60000"))
    step = text(page, "#scene-step")
    for _ in range(3):
        page.clock.fast_forward(60_000)
        page.wait_for_timeout(200)
        assert text(page, "#scene-step") == step, "it does not go on unseen"
    page.clock.fast_forward(70_000)
    waited(page, lambda: "hidden for four minutes; what it changed is restored" in text(page, "#scene-text"))
    assert state(fresh) == before
    page.close()


def test_a_scene_that_nobody_follows_stops(browser: Browser, fresh: Lab, before: dict[str, Any]) -> None:
    page = open_page(browser, fresh)
    begin(page, 4)
    is_at(page, 2, "guess")
    page.clock.fast_forward(901_000)
    waited(page, lambda: "nothing was clicked for 15 minutes; what it changed" in text(page, "#scene-text"))
    assert state(fresh) == before
    page.close()


def test_a_scene_whose_lease_has_lapsed_stops(browser: Browser, fresh: Lab, before: dict[str, Any]) -> None:
    page = open_page(browser, fresh)
    begin(page, 4)
    is_at(page, 2, "guess")
    assert ask("PUT", f"{fresh.client_url}/scenes/{scene(fresh)['id']}?lease_ms=0")[0] == 200
    waited(page, lambda: "its page was not active" in text(page, "#scene-text"))
    assert state(fresh) == before
    page.close()


def test_a_scene_can_be_followed_with_the_keyboard(browser: Browser, fresh: Lab) -> None:
    page = open_page(browser, fresh, pace=1000)
    focused = "document.activeElement.id || document.activeElement.textContent"
    page.focus("#scene-buttons button")
    page.keyboard.press("Enter")
    is_at(page, 1, "seen")
    assert page.evaluate(focused) == "scene-next"
    page.keyboard.press("Enter")
    is_at(page, 2, "guess")
    assert page.evaluate(focused) == "scene-guess"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "The new value"
    page.keyboard.press("Enter")
    is_at(page, 2, "seen")
    assert page.evaluate(focused) == "scene-next"
    page.focus("#scene-back")
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "scene-next"  # there is nothing before
    page.focus("#key")
    page.locator("#scene-next").dispatch_event("click")
    page.locator("#scene-next").dispatch_event("click")
    is_at(page, 3, "guess")
    assert page.evaluate(focused) == "key"  # who works elsewhere keeps the focus
    page.close()


@pytest.mark.parametrize(("size", "scheme"), [("wall", "light"), ("laptop", "dark"), ("phone", "light")])
def test_a_scene_is_beside_the_lanes_and_readable(
    browser: Browser, fresh: Lab, pictures: Path, size: str, scheme: Any
) -> None:
    width, height = SIZES[size]
    page = open_page(browser, fresh, pace=1000, viewport={"width": width, "height": height}, color_scheme=scheme)
    begin(page, 4)
    for step, phase in ((1, "seen"), (2, "guess"), (2, "seen")):
        is_at(page, step, phase)
        page.screenshot(path=pictures / f"scene-{size}-{scheme}-{step}-{phase}.png")
        assert page.evaluate(CUT_OFF) == []
        assert size == "phone" or page.evaluate(SCROLLED) == []
        assert size == "phone" or page.evaluate("document.scrollingElement.scrollHeight <= innerHeight")
        lanes, buttons = page.locator("#lanes").bounding_box(), page.locator("#scene-controls").bounding_box()
        assert lanes is not None
        assert buttons is not None
        assert -1 <= lanes["y"] < lanes["y"] + lanes["height"] <= height
        assert lanes["height"] > height * 0.4
        assert buttons["y"] + buttons["height"] <= height
        if phase == "guess":
            no_serious_violation(page)
            page.locator(GUESSES).nth(0).click()
        else:
            page.click("#scene-next")
    page.close()


def test_a_scene_is_restored_without_any_word_from_its_page(
    browser: Browser, fresh: Lab, before: dict[str, Any]
) -> None:
    page = open_page(browser, fresh)
    begin(page, 5)
    waited(page, lambda: any(one[0] == "partition" for one in state(fresh)["faults"][OTHER]))
    assert ask("POST", f"{fresh.client_url}/scenes", {"name": "another"})[0] == 409
    page.context.set_offline(True)
    page.close()
    until(lambda: scene(fresh) is None, LEASE_SECONDS + 10)
    assert state(fresh) == before


def test_a_killed_client_service_restores_the_scene_when_it_is_back(fresh: Lab, before: dict[str, Any]) -> None:
    status, found = ask("POST", f"{fresh.client_url}/scenes", {"name": "killed"})
    assert status == 201
    post(f"{fresh.client_url}/delays", {"replica": OTHER, "delay_ms": 9000, "order": "log", "seed": 1})
    post(f"{fresh.client_url}/faults", {"replica": OTHER, "fault": "pause"})
    killed = fresh.pids["lab14-client"]
    os.kill(killed, signal.SIGKILL)
    until(lambda: fresh.pids.get("lab14-client", killed) != killed, 20)
    until(lambda: is_healthy(fresh), 30)
    assert scene(fresh) in (None, found)  # None on a slow machine
    until(lambda: scene(fresh) is None, LEASE_SECONDS + 10)
    assert state(fresh) == before
