"""Scenes whose page goes away: the client service restores the lab."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import is_healthy
from tests.integration.console.conftest import OTHER, go, text, waited
from tests.support.http import ask, get, post
from tests.support.until import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(600)]
ROUNDS = 20
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


@pytest.fixture
def before(fresh: Lab) -> dict[str, Any]:
    """The lab with unusual settings and a fault."""
    post(f"{fresh.primary_url}/admin/replication-delay", {"replica": OTHER, **MODELS})
    post(f"{fresh.client_url}/faults", {"replica": OTHER, "fault": "duplicate", "probability": 0.1})
    return state(fresh)


def open_page(browser: Browser, lab: Lab) -> Page:
    page = browser.new_page()
    go(page, f"{lab.client_url}/?pace=0.2")
    page.click("#scenes-toggle")
    return page


def test_a_scene_restores_everything_when_its_page_is_closed_at_a_random_step(
    browser: Browser, fresh: Lab, before: dict[str, Any]
) -> None:
    chosen = random.Random(14)
    changed = 0
    for number in range(ROUNDS):
        page = open_page(browser, fresh)
        buttons = page.locator("#scene-buttons button")
        buttons.nth(number % buttons.count()).click()
        waited(page, lambda: scene(fresh))
        page.wait_for_timeout(chosen.uniform(0, 4000))
        changed += state(fresh) != before
        step = text(page, "#scene-text")
        page.close()
        until(lambda: scene(fresh) is None, LEASE_SECONDS + 10)
        assert state(fresh) == before, (number, step)
        print(f"{number}: closed at {step[:60]!r}")
    assert changed > ROUNDS / 2  # otherwise there was little to restore


def test_a_scene_is_restored_without_any_word_from_its_page(
    browser: Browser, fresh: Lab, before: dict[str, Any]
) -> None:
    page = open_page(browser, fresh)
    page.locator("#scene-buttons button").nth(4).click()
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
