"""What the console measures from the feed, also while writes are in flight: P(stale), windows, the version race."""

from __future__ import annotations

import random
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lab.local.supervisor import Lab
from tests.integration.conftest import set_delays
from tests.integration.console.conftest import OTHER, REPLICA, text, waited
from tests.support.http import get, post
from tests.support.load import Writers
from tests.support.until import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]

ESTIMATE = """async ([ended, censored, times, shares]) => {
    const { beyond, kaplanMeier, percentile } = await import("/console/survival.js");
    const curve = kaplanMeier(ended, censored);
    return {
        times: curve.times,
        shares: curve.shares,
        until: curve.until === Infinity ? null : curve.until,
        beyond: times.map((t) => beyond(curve, t)),
        percentiles: shares.map((share) => percentile(curve, share)),
    };
}"""
# A timeline that takes messages, with what it then measures.
MEASURE = """async (messages) => {
    const { Timeline } = await import("/console/timeline.js");
    const { race } = await import("/console/race.js");
    const timeline = new Timeline();
    for (const message of messages) timeline.take(message);
    const points = [...race(timeline)].map(([name, known]) => [name, known.map(({ at, version }) => [at, version])]);
    const { onTheirWay, ...windows } = timeline.windows();
    return { delays: Object.fromEntries(timeline.delaysSeen()), windows, onTheirWay, race: Object.fromEntries(points) };
}"""


def sample(seed: int) -> tuple[list[float], list[float]]:
    """Durations that ended, and censored ones; some with ties."""
    draw = random.Random(seed)
    count = draw.choice([1, 2, 10, 100, 1000])
    digits = draw.choice([0, 6])
    all_ms = [(round(draw.expovariate(1 / 30), digits), round(draw.expovariate(1 / 50), digits)) for _ in range(count)]
    ended = [late for late, seen in all_ms if late <= seen]
    return ended, [seen for late, seen in all_ms if late > seen]


def test_the_kaplan_meier_estimate_equals_that_of_statsmodels(script: Page) -> None:
    from statsmodels.duration.survfunc import SurvfuncRight  # installed only by the target that runs this test

    for seed in range(20):
        ended, censored = sample(seed)
        reference = SurvfuncRight(np.array(ended + censored), np.array([1] * len(ended) + [0] * len(censored)))
        asked = [0.1, 0.5, 0.9, 0.95, 0.99]
        found = script.evaluate(ESTIMATE, [ended, censored, [*reference.surv_times, 1e9], asked])
        assert found["times"] == pytest.approx(list(reference.surv_times))
        assert found["shares"] == pytest.approx(list(reference.surv_prob), abs=1e-12)
        assert [share for _, share in found["beyond"][:-1]] == pytest.approx(list(reference.surv_prob), abs=1e-12)
        last = found["shares"][-1] if found["shares"] else 1
        assert found["beyond"][-1] == [0, pytest.approx(last)]
        assert found["until"] == (None if last == 0 else max(ended + censored))
        for share, percentile in zip(asked, found["percentiles"], strict=True):
            expected = reference.quantile(share)
            if not any(abs(prob - (1 - share)) < 1e-9 for prob in reference.surv_prob):  # there they may choose either
                assert percentile == (None if np.isnan(expected) else pytest.approx(expected)), (seed, share)


def test_a_sample_of_nothing_supports_nothing(script: Page) -> None:
    found = script.evaluate(ESTIMATE, [[], [], [0, 5], [0.5]])
    assert (found["beyond"], found["percentiles"]) == ([[0, 1], [0, 1]], [None])
    found = script.evaluate(ESTIMATE, [[3], [5], [2, 3, 5, 6], [0.5, 0.6]])
    assert found["beyond"] == [[1, 1], [0.5, 0.5], [0.5, 0.5], [0, 0.5]]
    assert found["percentiles"] == [3, None]


def writes(*versions_at: tuple[int, float], epoch: int = 1) -> list[dict[str, Any]]:
    return [
        {"position": f"{epoch}-{version}", "op": "set" if version else "epoch", "key": "k", "at_ms": at}
        for version, at in versions_at
    ]


def applied(*versions_at: tuple[int, float], replica: str = "r") -> list[dict[str, Any]]:
    return [
        {"replica": replica, "position": f"1-{version}", "applied_ms": at, "applied_after_ms": 100}
        for version, at in versions_at
    ]


def states(position: str, at_seconds: float, *, order: str = "log", replica: str = "r") -> list[dict[str, Any]]:
    heartbeat = f"1970-01-01T00:00:{at_seconds:09.6f}Z"
    known = {"live": True, "heartbeat_at": heartbeat, "applied_position": position, "order": order, "delay_ms": 500}
    return [{"replica_id": replica, **known}]


def test_a_write_in_flight_is_observed_up_to_the_last_report(script: Page) -> None:
    first = {"now_ms": 10_000, "state": states("1-0", 9.5), "writes": writes((1, 10_000), (2, 10_100))}
    then = {"now_ms": 10_700, "applied": applied((1, 10_500))}
    found = script.evaluate(MEASURE, [first, then])
    assert found["delays"]["r"] == {"ended": [500], "censored": [400]}  # up to the apply, not up to the present
    assert (found["windows"], found["onTheirWay"]) == (found["delays"]["r"], 1)
    # A heartbeat counts once the next one has been received.
    beats = [{"now_ms": 20_000, "state": states("1-1", at)} for at in (11.5, 12.5)]
    assert script.evaluate(MEASURE, [first, then, beats[0]])["delays"]["r"]["censored"] == [400]
    assert script.evaluate(MEASURE, [first, then, *beats])["delays"]["r"]["censored"] == [1400]


def test_a_write_that_was_not_seen_from_its_commit_on_does_not_count(script: Page) -> None:
    first = {"now_ms": 10_000, "state": states("1-0", 9.5)}
    then = {"now_ms": 10_700, "applied": applied((1, 10_500), (2, 10_600)), "writes": writes((2, 10_500))}
    found = script.evaluate(MEASURE, [first, then])
    assert found["delays"]["r"] == found["windows"] == {"ended": [100], "censored": []}


@pytest.mark.parametrize("missed", ["by a later entry", "by heartbeats", "by heartbeats, in order of arrival"])
def test_an_entry_whose_apply_was_missed_counts_up_to_when_it_was_lacking(script: Page, missed: str) -> None:
    order = "arrival" if "arrival" in missed else "log"
    before = [
        {"now_ms": 10_000, "state": states("1-0", 9.5, order=order), "writes": writes((1, 10_000), (2, 10_010))},
        {"now_ms": 10_300, "applied": applied((1, 10_200))},
    ]
    if missed == "by a later entry":
        after = [{"now_ms": 15_000, "writes": writes((3, 14_000)), "applied": applied((3, 14_500))}]
        ended = [200, 500]
    else:
        after = [{"now_ms": 15_000, "state": states("1-2", at, order=order)} for at in (14.5, 15.5, 16.5)]
        ended = [200]
    found = script.evaluate(MEASURE, [*before, *after])
    assert {side: sorted(ms) for side, ms in found["delays"]["r"].items()} == {"ended": ended, "censored": [190]}
    assert found["onTheirWay"] == 0


def test_a_late_report_replaces_what_was_assumed_to_be_missed(script: Page) -> None:
    messages: list[Any] = [
        {"now_ms": 10_000, "state": states("1-0", 9.5), "writes": writes((1, 10_000), (2, 10_010))},
        {"now_ms": 10_700, "state": states("1-1", 10.6)},
        {"now_ms": 11_700, "state": states("1-2", 11.6)},
        {"now_ms": 11_800, "applied": applied((1, 10_500), (2, 10_510))},
    ]
    assert script.evaluate(MEASURE, messages)["delays"]["r"] == {"ended": [500, 500], "censored": []}


def test_a_reset_ends_the_observations_of_its_epoch(script: Page) -> None:
    messages: list[Any] = [
        {"now_ms": 10_000, "state": states("1-0", 9.5), "writes": writes((1, 10_000), (2, 10_100), (3, 10_200))},
        {"now_ms": 10_600, "applied": applied((1, 10_500))},
        {"now_ms": 10_700, "writes": writes((0, 10_450), epoch=2)},
        {"now_ms": 12_700, "state": states("2-0", 11.5)},
        {"now_ms": 13_700, "state": states("2-0", 12.5)},
    ]
    found = script.evaluate(MEASURE, messages)
    assert found["delays"]["r"]["ended"] == []
    assert sorted(found["delays"]["r"]["censored"]) == [250, 350, 450]
    assert found["onTheirWay"] == 0


def test_a_replica_that_joins_later_counts_from_then_on(script: Page) -> None:
    both = [*states("1-0", 10.5), *states("1-0", 10.5, replica="s")]
    messages: list[Any] = [
        {"now_ms": 10_000, "state": states("1-0", 9.5), "writes": writes((1, 10_000))},
        {"now_ms": 10_600, "state": both, "writes": writes((2, 10_550))},
        {
            "now_ms": 11_000,
            "applied": applied((1, 10_700), (2, 10_800)) + applied((1, 10_900), (2, 10_950), replica="s"),
        },
    ]
    found = script.evaluate(MEASURE, messages)
    assert {name: sorted(seen["ended"]) for name, seen in found["delays"].items()} == {"r": [250, 700], "s": [400]}
    assert sorted(found["windows"]["ended"]) == [400, 700]


def test_the_version_race_has_every_write_and_apply(script: Page) -> None:
    messages: list[Any] = [
        {"now_ms": 10_000, "state": states("1-0", 9.5, order="arrival"), "writes": writes((1, 10_000), (2, 10_010))},
        {"now_ms": 10_600, "applied": applied((2, 10_300), (1, 10_400))},
        {"now_ms": 10_700, "writes": writes((0, 10_500), (1, 10_600), epoch=2)},
        {"now_ms": 11_700, "state": states("2-1", 11.5)},
    ]
    found = script.evaluate(MEASURE, messages)["race"]
    assert found["primary"] == [[10_000, 1], [10_010, 2], [10_500, 0], [10_600, 1]]
    # Version 2 is reached when version 1 is there as well.
    assert found["r"] == [[9500, 0], [10_400, 2], [11_500, 1]]


def table(page: Page, name: str) -> list[list[str]]:
    """Return the cells of a chart's table."""
    found: list[list[str]] = page.locator(f"#{name}-table tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return found


def stale_at_1000_ms(page: Page) -> list[str]:
    """Return what is shown of P(stale) next to 1000 ms: with the delays here the curve is flat there."""
    return [row[1] for row in table(page, "stale") if 900 <= float(row[0]) <= 1100]


def test_the_measured_staleness_is_right_while_writes_are_in_flight(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 500, 1500)
    shown: list[tuple[float, str]] = []
    started = time.monotonic()

    def watch(seconds: float) -> list[str]:
        end = time.monotonic() + seconds
        since = len(shown)
        while time.monotonic() < end:
            shown.extend((time.monotonic() - started, cell) for cell in stale_at_1000_ms(page))
            page.wait_for_timeout(200)
        return [cell for _, cell in shown[since:]]

    with Writers(fresh.primary_url, count=1, rate=8, keys=4):
        # From the first write on that is a second old; on a busy machine the page hears of it later.
        until(lambda: "1.000" not in "".join(stale_at_1000_ms(page) or ["1.000"]), 5)
        for cell in watch(6):
            # While no write is old enough, the estimate is an upper bound.
            assert abs(float(cell.removeprefix("unknown: 0.000 to ")) - 0.5) <= 0.02, shown
        assert all(not cell.startswith("unknown") for at, cell in shown if at > 4), shown
        print("first known after", next(at for at, cell in shown if not cell.startswith("unknown")), "s")
        post(f"{fresh.client_url}/faults", {"replica": REPLICA, "fault": "pause"})
        paused = watch(8)
        print(paused[::10])
        assert all(float(cell) >= 0.48 for cell in paused), paused
        assert float(paused[-1]) > 0.55  # the paused replica's writes count as late
        assert "still on the way" in text(page, "#percentiles")
        assert int(re.search(r"(\d+) writes are still on the way", text(page, "#percentiles"))[1]) > 50  # type: ignore[index]
        assert get(f"{fresh.client_url}/faults")["replicas"][REPLICA]["faults"]


def test_windows_that_nothing_supports_are_unknown(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 20, 40)
    for value in range(3):
        post(f"{fresh.client_url}/write-and-wait", {"key": "k", "value": value})
    waited(page, lambda: text(page, "#percentiles").startswith("3 windows"))
    assert text(page, "#percentiles").endswith("; 0 writes are still on the way.")
    post(f"{fresh.client_url}/faults", {"replica": OTHER, "fault": "pause"})
    for value in range(3):
        post(f"{fresh.client_url}/write", {"key": "k", "value": value})
    waited(page, lambda: "p95 unknown" in text(page, "#percentiles"))
    assert "3 writes are still on the way" in text(page, "#percentiles")
    waited(page, lambda: table(page, "windows")[-1][1:] == ["unknown", "50.0 %"])


def test_charts_name_every_line_and_say_what_is_missing(page: Page, fresh: Lab) -> None:
    waited(page, lambda: "No write has reached every replica" in text(page, "#windows"))
    assert page.locator("#windows canvas").count() == 0
    set_delays(fresh, 50, 100)
    post(f"{fresh.client_url}/write-and-wait", {"key": "k", "value": 1})
    waited(page, lambda: page.locator("#windows canvas").count() == 1)

    def legend(chart: str) -> list[str]:
        return [label.strip() for label in page.locator(f"#{chart} .u-legend .u-series:visible").all_inner_texts()]

    assert legend("race") == ["primary", REPLICA, OTHER]
    assert legend("windows") == ["complete", "longer than observed"]
    assert legend("stale") == ["measured", "predicted", "unknown"]
    assert table(page, "race")[0][1:] == [str(get(f"{fresh.primary_url}/version")["version"])] * 3


def test_an_axis_never_says_minus_zero(script: Page) -> None:
    asked = "async (numbers) => numbers.map((await import('/console/charts.js')).numberText)"
    assert script.evaluate(asked, [-0.00001, 0, -30, 0.25, 1e-17, 250]) == [
        "0",
        "0",
        "\N{MINUS SIGN}30",
        "0.25",
        "0",
        "250",
    ]
