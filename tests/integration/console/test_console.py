"""The console in a real browser, on a real lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import applied, set_delays
from tests.integration.console.conftest import OTHER, REPLICA, ROOT, Seen, shown_after_ms, text, waited
from tests.support.http import POOL, ask, get, post
from tests.support.load import Writers
from tests.support.until import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]
NASTY = "<img src=x onerror=\"document.title='hurt'\">"


def test_a_write_appears_on_every_lane_when_it_was_applied_there(page: Page, fresh: Lab) -> None:
    page.fill("#key", "travels")
    page.click("button[value=write]")
    waited(page, lambda: text(page, "#answer").startswith("Position "))
    position = text(page, "#answer").removeprefix("Position ").rstrip(".")
    shown = shown_after_ms(page, position, "applied")
    for replica, url in fresh.replica_urls.items():
        (entry,) = [one for one in applied(url) if one["position"] == position]
        assert abs(shown[replica] - entry["applied_after_ms"]) < 100
    marks = page.evaluate(
        "document.getElementById('lanes').getContext('2d').getImageData(0, 0, 2000, 1000).data.some(Boolean)"
    )
    assert marks


def test_current_state_shows_each_nodes_value_of_the_watched_key(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 20, 20)
    page.fill("#key", "watched")
    post(f"{fresh.client_url}/write-and-wait", {"key": "watched", "value": "a value"})
    waited(page, lambda: text(page, "#now tbody").count('"a value"') == 3)
    assert text(page, "#watched-name") == "watched"


def test_each_control_changes_the_lab(page: Page, fresh: Lab) -> None:
    page.click("#tab-delays")
    page.fill(f"#delay-{REPLICA} input[name=delay]", "40")
    page.click(f"#delay-{REPLICA} button")
    waited(page, lambda: "delay set to 40 ms" in text(page, "#changed"))
    page.select_option(f"#delay-{OTHER} select[name=model]", "exponential")
    page.fill(f"#delay-{OTHER} input[name=delay]", "80")
    page.click(f"#delay-{OTHER} button")
    waited(page, lambda: "(exponential)" in text(page, "#changed"))
    page.click("#tab-acks")
    page.fill(f"#ack-{OTHER} input[name=delay]", "70")
    page.click(f"#ack-{OTHER} button")
    waited(page, lambda: "ack delay set to 70 ms (fixed)" in text(page, "#changed"))
    found = get(f"{fresh.primary_url}/admin/replication-delays")
    assert sorted(found["ack_delays"].values()) == [0, 70]
    models = found["models"]
    assert sorted((model["kind"], model.get("ms") or model.get("mean_ms")) for model in models.values()) == [
        ("exponential", 80),
        ("fixed", 40),
    ]

    page.click("#tab-requests")
    page.click("button[value=write-and-wait]")
    waited(page, lambda: "reached every replica after" in text(page, "#answer"))
    page.click("button[value=write-and-read]")
    waited(page, lambda: "replicas" in text(page, "#answer"))
    page.select_option("#level", "strong")
    page.click("#read-form button")
    waited(page, lambda: "lab14-primary returned" in text(page, "#answer"))
    page.select_option("#level", "eventual")
    page.select_option("#from", REPLICA)
    page.click("#read-form button")
    waited(page, lambda: f"{REPLICA} returned" in text(page, "#answer"))

    page.click("#tab-faults")
    page.select_option(f"#fault-{REPLICA} select", "pause")
    page.click(f"#fault-{REPLICA} button")
    waited(page, lambda: "pause started" in text(page, "#changed"))
    assert [one["fault"] for one in get(f"{fresh.client_url}/faults")["replicas"][REPLICA]["faults"]] == ["pause"]
    waited(page, lambda: "pause" in text(page, "#now tbody"))
    page.click("#end-faults")
    waited(page, lambda: "All faults ended" in text(page, "#changed"))
    assert get(f"{fresh.client_url}/faults")["replicas"][REPLICA]["faults"] == []

    epoch = get(f"{fresh.primary_url}/version")["epoch"]
    page.click("#reset")
    waited(page, lambda: "new epoch" in text(page, "#changed"))
    assert get(f"{fresh.primary_url}/version")["epoch"] == epoch + 1


def test_a_delay_set_elsewhere_is_shown(page: Page, fresh: Lab) -> None:
    assert text(page, f"#delay-{OTHER} output") == "fixed, 1500 ms"
    assert text(page, f"#ack-{OTHER} output") == "fixed, 0 ms"
    models = {
        "model": {"kind": "uniform", "low_ms": 10, "high_ms": 20},
        "ack_model": {"kind": "exponential", "mean_ms": 300},
    }
    post(f"{fresh.primary_url}/admin/replication-delay", {"replica": OTHER, **models})
    waited(page, lambda: text(page, f"#ack-{OTHER} output") == "exponential, mean 300 ms")
    assert text(page, f"#delay-{OTHER} output") == "uniform, low 10 ms, high 20 ms"


def test_a_steady_load_runs_until_it_is_turned_off(page: Page, fresh: Lab) -> None:
    page.evaluate(
        "const rate = document.getElementById('rate'); rate.value = 20; rate.dispatchEvent(new Event('input'))"
    )
    waited(page, lambda: get(f"{fresh.primary_url}/version")["version"] > 30)
    waited(page, lambda: "windows in the last minute: p50" in text(page, "#percentiles"))
    page.evaluate(
        "const rate = document.getElementById('rate'); rate.value = 0; rate.dispatchEvent(new Event('input'))"
    )
    page.wait_for_timeout(300)
    version = get(f"{fresh.primary_url}/version")["version"]
    page.wait_for_timeout(500)
    assert get(f"{fresh.primary_url}/version")["version"] == version


def test_measured_and_predicted_staleness_agree(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 110, 310)
    with Writers(fresh.primary_url, count=2, rate=20, keys=5):

        def both() -> list[list[float]] | None:
            lines = page.locator("#stale-table tbody tr").evaluate_all(
                "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
            )
            known = lines and all(all(line) and not line[1].startswith("unknown") for line in lines)
            return [[float(cell) for cell in line] for line in lines] if known else None

        def alike() -> bool:
            # The curves can differ by a millisecond at a step; everywhere else they agree.
            rows = both()
            return rows is not None and sum(abs(measured - predicted) > 0.1 for _, measured, predicted in rows) <= 2

        waited(page, alike)
    asked = get(f"{fresh.client_url}/prediction?until_ms=400&points=5")
    assert (asked["t_ms"], asked["stale"]) == ([0, 100, 200, 300, 400], [1, 1, 0.5, 0.5, 0])
    assert asked["converged"] == [0, 0, 0, 0, 1]
    assert ask("GET", f"{fresh.client_url}/prediction?points=1")[0] == 400


def test_the_paused_picture_is_still_and_can_step_back(page: Page, fresh: Lab) -> None:
    post(f"{fresh.primary_url}/data", {"key": "k", "value": 1})
    page.wait_for_timeout(1000)
    page.click("#pause")
    pixels = "document.getElementById('lanes').toDataURL()"
    before = page.evaluate(pixels)
    page.wait_for_timeout(500)
    assert page.evaluate(pixels) == before
    page.evaluate(
        "const back = document.getElementById('back'); back.value = 5; back.dispatchEvent(new Event('input'))"
    )
    assert page.evaluate(pixels) != before
    assert text(page, "#back-text") == "5 s earlier"
    page.click("#pause")
    assert page.get_attribute("#pause", "aria-pressed") == "false"


def test_values_are_shown_as_text_never_as_markup(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 20, 20)
    page.fill("#key", NASTY)
    post(f"{fresh.client_url}/write-and-wait", {"key": NASTY, "value": NASTY})
    waited(page, lambda: text(page, "#now tbody").count("onerror") == 3)
    post(f"{fresh.client_url}/write-and-wait", {"key": NASTY, "value": "x" * 200_000})
    waited(page, lambda: "xxxx" in text(page, "#now tbody"))
    assert len(text(page, "#now tbody")) < 2000
    assert page.title() == "Eventual consistency lab"
    assert page.locator("main img").count() == 0


def test_the_content_security_policy_is_enforced(page: Page, seen: Seen, fresh: Lab) -> None:
    answer = POOL.request("GET", f"{fresh.client_url}/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    inline = "const s = document.createElement('script'); s.textContent = 'window.hurt = 1'; document.body.append(s);"
    assert page.evaluate(f"() => {{ {inline} return window.hurt === undefined; }}")
    assert "Content Security Policy" in seen.errors.pop()
    assert POOL.request("GET", f"{fresh.client_url}/console/../app.py").status == 404
    assert POOL.request("GET", f"{fresh.client_url}/console/nothing.js").status == 404


def test_a_lost_connection_is_shown_and_restored(browser: Browser, fresh: Lab) -> None:
    found = browser.new_page()
    found.goto(f"{fresh.client_url}/")
    found.wait_for_selector("#connection[data-state=open]")
    os.kill(fresh.pids["lab14-client"], signal.SIGKILL)
    found.wait_for_selector("#connection[data-state=lost]", timeout=15_000)
    found.wait_for_selector("#connection[data-state=open]", timeout=30_000)
    until(lambda: _healthy(fresh), 20)
    written = post(f"{fresh.client_url}/write", {"key": "after", "value": 1})
    found.evaluate("document.getElementById('writes').closest('details').open = true")
    found.locator(f"#writes tbody tr:has(td:text-is('{written['position']}'))").wait_for()
    found.close()


def _healthy(lab: Lab) -> bool:
    try:
        return ask("GET", f"{lab.client_url}/health")[0] == 200
    except Exception:  # noqa: BLE001 - it is still starting
        return False


def test_the_console_screenshot_command_works(tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "docs" / "figures.py"), "console", "--out", str(tmp_path / "console.png")]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "console.png").read_bytes().startswith(b"\x89PNG")
