"""The strip of the stream beside the real log server: an entry's state at each replica, and its sheet."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from broker.connection import connect
from lab.local.supervisor import Lab
from tests.integration.conftest import set_delays
from tests.integration.console.conftest import OTHER, REPLICA, go, set_ack_delays, shown_after_ms, text, waited
from tests.support.http import get, post

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(120)]
LOG = "lab14:log"
UNDELIVERED, PENDING, APPLIED, ACKNOWLEDGED = "undelivered", "pending", "applied, unacknowledged", "acknowledged"
# Everything that the entries' labels have said, in order.
RECORD = """() => {
    window.recorded = [];
    const labels = () => [...document.querySelectorAll("#entries button")].map((button) => button.ariaLabel);
    const observer = new MutationObserver(() => window.recorded.push(...labels()));
    observer.observe(document.getElementById("entries"), { subtree: true, childList: true, attributes: true });
}"""
# The state of entry 1-2, written at 1000, at each time: what the feed reports is given.
STATES = """async ([messages, times]) => {
    const { Timeline } = await import("/console/timeline.js");
    const { stateAt } = await import("/console/progress.js");
    const timeline = new Timeline();
    const state = {
        replica_id: "r", live: true, applied_position: "1-1", acknowledged_version: 1, delay_ms: 500, order: "log",
        heartbeat_at: new Date(500).toISOString(),
    };
    timeline.take({ now_ms: 900, state: [state] });
    timeline.take({ now_ms: 1050, writes: [{ position: "1-2", op: "set", at_ms: 1000 }] });
    for (const message of messages) {
        const states = message.state && [{ ...state, ...message.state }];
        const of = (kind) => message[kind] && [{ replica: "r", position: "1-2", ...message[kind] }];
        const groups = message.groups?.map(([delivered, at_ms]) => ({ replica: "r", delivered, at_ms }));
        const progress = { applied: of("applied"), acknowledged: of("acknowledged") };
        timeline.take({ now_ms: message.now_ms ?? 9000, state: states, groups, ...progress });
    }
    return times.map((end) => stateAt(timeline, timeline.writes.get("1-2"), "r", end));
}"""
COMMANDS = """async ([log, position, names]) => {
    const { commands } = await import("/console/commands.js");
    return commands(log, position, names);
}"""


@contextmanager
def partitioned(lab: Lab, replica: str) -> Iterator[None]:
    """Cut a replica off from the log for the block."""
    post(f"{lab.client_url}/faults", {"replica": replica, "fault": "partition"})
    try:
        yield
    finally:
        post(f"{lab.client_url}/faults/reset")


def redis_of(lab: Lab) -> Any:
    return connect(lab.redis_url)


def write(lab: Lab, value: str = "hello") -> str:
    return str(post(f"{lab.client_url}/write", {"key": "strip", "value": value})["position"])


def button(page: Page, position: str) -> Any:
    return page.locator(f"#entries button:has(code:text-is('{position}'))")


def states_in(label: str) -> dict[str, str]:
    """The state by replica, from the label of an entry."""
    parts = label.split(": ", 1)[1].split("; ")
    return dict(part.split(" ", 1) for part in parts if " " in part)  # none before the replicas are known


def show(page: Page, position: str, *states: str) -> None:
    """Wait until the strip shows these states of an entry, in the order of the replicas."""
    expected = dict(zip((REPLICA, OTHER), states, strict=True))
    found = button(page, position)
    waited(page, lambda: found.count() and states_in(found.get_attribute("aria-label")) == expected)


def in_log(lab: Lab, position: str) -> list[tuple[bool, bool]]:
    """Whether an entry has been delivered to each replica, and whether it is pending, as the log server reports it."""
    client = redis_of(lab)
    number = int(position.partition("-")[2])
    last = {one["name"]: int(one["last-delivered-id"].partition("-")[2]) for one in client.xinfo_groups(LOG)}
    pending = [client.xpending_range(LOG, name, position, position, 1) for name in (REPLICA, OTHER)]
    return [(last[name] >= number, bool(one)) for name, one in zip((REPLICA, OTHER), pending, strict=True)]


def test_entries_from_before_the_page_are_in_the_strip_and_in_no_curve(
    page: Page, browser: Browser, fresh: Lab
) -> None:
    set_delays(fresh, 10, 20)
    position = write(fresh)
    show(page, position, ACKNOWLEDGED, ACKNOWLEDGED)
    later = browser.new_page()
    go(later, fresh.client_url)
    show(later, position, ACKNOWLEDGED, ACKNOWLEDGED)
    waited(later, lambda: "No write to" in text(later, "#stale-note"))
    next_one = write(fresh)
    show(later, next_one, ACKNOWLEDGED, ACKNOWLEDGED)
    shown = later.locator("#entries code").all_inner_texts()
    assert shown[-2:] == [position, next_one]
    button(later, position).click()
    assert "strip" in text(later, "#entry-fields")
    later.close()


def test_an_entry_goes_through_its_states_in_order(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 500, 1000)
    set_ack_delays(fresh, 500, 700)
    page.evaluate(RECORD)
    position = write(fresh)
    show(page, position, ACKNOWLEDGED, ACKNOWLEDGED)
    labels = [label for label in page.evaluate("window.recorded") if (label or "").startswith(f"{position}: ")]
    for replica in (REPLICA, OTHER):
        states = [states_in(label)[replica] for label in labels]
        changes = [one for one, before in zip(states, [None, *states], strict=False) if one != before]
        known = [one for one in changes if one not in {"unknown", UNDELIVERED}]  # both pass within a moment
        assert known == [PENDING, APPLIED, ACKNOWLEDGED]
    assert in_log(fresh, position) == [(True, False), (True, False)]
    both = [
        button(page, position).locator(".cell").all_inner_texts(),
        page.locator("#strip-legend li").all_inner_texts(),
    ]
    assert both == [["✓", "✓"], ["□ undelivered", "◧ pending", "■ applied, unacknowledged", "✓ acknowledged"]]


def test_the_states_agree_with_the_log_server(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 20, 600_000)
    set_ack_delays(fresh, 600_000, 0)
    first = write(fresh)
    show(page, first, APPLIED, PENDING)
    assert in_log(fresh, first) == [(True, True), (True, True)]
    versions = [get(f"{url}/version")["position"] for url in fresh.replica_urls.values()]
    assert (versions[0], versions[1] != first) == (first, True)
    with partitioned(fresh, OTHER):
        second = write(fresh)
        show(page, second, APPLIED, UNDELIVERED)
        assert in_log(fresh, second) == [(True, True), (False, False)]
    show(page, second, APPLIED, PENDING)
    assert in_log(fresh, second) == [(True, True), (True, True)]
    redis = redis_of(fresh)
    ids = [name for name, _ in redis.xrange(LOG)]
    shown = page.locator("#entries code").all_inner_texts()
    assert shown == ids[-len(shown) :]


UNKNOWN = None
DELIVERED = {"groups": [["1-1", 900], ["1-1", 1900], ["1-2", 2000]]}


CASES: list[tuple[list[dict[str, Any]], dict[int, str | None]]] = [
    ([], {1500: UNKNOWN}),  # the log has not been asked
    ([{"groups": [["1-1", 950]]}], {1500: UNKNOWN}),  # asked before the write only
    ([{"groups": [["1-1", 1000]]}], {1500: UNKNOWN}),  # asked at the moment of the write
    ([{"groups": [["1-1", 1100]]}], {1050: UNKNOWN, 1100: "undelivered", 1500: "undelivered"}),
    ([DELIVERED], {1500: UNKNOWN, 1900: UNKNOWN, 2000: "pending", 2500: "pending"}),
    ([{"groups": [["1-1", 1100], ["1-1", 1200], ["1-2", 2000]]}], {1150: "undelivered", 1200: UNKNOWN}),
    (
        [DELIVERED, {"applied": {"applied_ms": 2500, "applied_after_ms": 1500}}],
        {2400: "pending", 2500: "applied", 3000: "applied"},
    ),
    (
        [
            {"applied": {"applied_ms": 2500, "applied_after_ms": 1500}},
            {"acknowledged": {"acknowledged_ms": 3000, "acknowledged_after_ms": 2000}},
        ],
        {2400: UNKNOWN, 2500: "applied", 2999: "applied", 3000: "acknowledged"},
    ),
    # Reported without a time: known from the report on.
    ([DELIVERED, {"now_ms": 4000, "state": {"applied_position": "1-2"}}], {3999: UNKNOWN, 4000: "applied"}),
    (
        [DELIVERED, {"now_ms": 4000, "state": {"applied_position": "1-2", "acknowledged_version": 2}}],
        {3999: UNKNOWN, 4000: "acknowledged"},
    ),
    # A replica that is silent may have applied it; what the log has not delivered is undelivered all the same.
    ([DELIVERED, {"state": {"live": False}}], {2000: UNKNOWN}),
    ([{"groups": [["1-1", 1100]]}, {"state": {"live": False}}], {1500: "undelivered"}),
]


def test_a_state_is_right_at_its_moment_or_unknown(script: Page) -> None:
    for messages, expected in CASES:
        shown = dict(zip(expected, script.evaluate(STATES, [messages, list(expected)]), strict=True))
        assert shown == expected, messages


# The moment that the picture shows, and the label of the newest entry in the strip.
MOMENT = """() => {
    const newest = document.querySelector("#entries li:last-child button");
    return [Number(document.getElementById("lanes").dataset.endMs), newest?.ariaLabel ?? ""];
}"""


def reported(lab: Lab, position: str, kind: str) -> list[float]:
    """When each replica applied or acknowledged an entry, in milliseconds, as it reports."""
    found = [get(f"{url}/version?min_acknowledged={position}&timeout_ms=10000") for url in lab.replica_urls.values()]
    return [datetime.fromisoformat(one[f"{kind}_at"]).timestamp() * 1000 for one in found]


def test_stepping_back_shows_the_entries_and_states_of_that_moment(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 1000, 2000)
    set_ack_delays(fresh, 1000, 1500)
    _, position = write(fresh), write(fresh)
    show(page, position, ACKNOWLEDGED, ACKNOWLEDGED)
    applied, acknowledged = (reported(fresh, position, kind) for kind in ("applied", "acknowledged"))
    ((_, fields),) = redis_of(fresh).xrange(LOG, position, position)
    written = int(fields["at"]) / 1000
    page.click("#pause")
    seen = set()
    for back in [half / 2 for half in range(24)]:
        page.fill("#back", str(back))
        end, label = page.evaluate(MOMENT)
        assert label.startswith(f"{position}: ") == (written <= end)
        if end < written:
            seen.add("not yet written")
            assert page.is_visible("#strip-none") == (label == "")
            continue
        for state, *times in zip(states_in(label).values(), applied, acknowledged, strict=True):
            # As the page knew it then: what happened just before was not reported yet, and the log not asked.
            expected = {
                [PENDING, APPLIED, ACKNOWLEDGED][sum(time <= until for time in times)] for until in (end - 500, end)
            }
            assert state in expected or (state == "unknown" and end < written + 500)
            seen.add(state)
    assert seen >= {"not yet written", PENDING, APPLIED, ACKNOWLEDGED}


def opened(page: Page, position: str) -> None:
    """Open an entry's sheet by a click."""
    button(page, position).click()
    assert page.locator("#entry-fields dd").count() == 6


def way(page: Page) -> list[list[str]]:
    rows = page.locator("#entry-way tbody tr")
    return [rows.nth(row).locator("td").all_inner_texts() for row in range(rows.count())]


@pytest.mark.parametrize("value", ["hello", "x" * 300, "<b>&amp;</b>"])
def test_the_sheet_shows_the_fields_of_the_entry_and_its_way(page: Page, fresh: Lab, value: str) -> None:
    set_delays(fresh, 20, 60)
    set_ack_delays(fresh, 50, 600_000)
    position = write(fresh, value)
    show(page, position, ACKNOWLEDGED, APPLIED)
    opened(page, position)
    ((_, fields),) = redis_of(fresh).xrange(LOG, position, position)
    names, texts = (page.locator(f"#entry-fields {tag}").all_inner_texts() for tag in ("dt", "dd"))
    shown = dict(zip(names, texts, strict=True))
    if len(fields["value"]) > 120:
        fields["value"] = f"{fields['value'][:120]}… the first 120 of {len(fields['value'])} characters"
    assert shown == {name: found or '""' for name, found in fields.items()}
    assert list(shown) == list(fields)
    cells = way(page)
    after = {kind: f"after {shown_after_ms(page, position, 'applied')[kind]:.1f} ms" for kind in (REPLICA, OTHER)}
    assert [row[:3] for row in cells] == [[REPLICA, "yes", after[REPLICA]], [OTHER, "yes", after[OTHER]]]
    assert cells[0][3].startswith("after ")
    assert cells[1][3] == "on its way back"


def test_the_sheet_says_what_has_not_happened_yet(page: Page, fresh: Lab) -> None:
    set_delays(fresh, 600_000, 20)
    with partitioned(fresh, OTHER):
        position = write(fresh)
        show(page, position, PENDING, UNDELIVERED)
        opened(page, position)
        cells = way(page)
    assert cells == [[REPLICA, "yes", "on its way", "not yet"], [OTHER, "not yet", "not yet", "not yet"]]


def test_the_shown_commands_return_the_entry_from_the_real_server(browser: Browser, fresh: Lab) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    go(page, fresh.client_url)
    set_delays(fresh, 600_000, 20)
    position = write(fresh)
    show(page, position, PENDING, ACKNOWLEDGED)
    opened(page, position)
    lines = page.locator("#entry-commands code").all_inner_texts()
    assert lines[0] == f"redis-cli XRANGE {LOG} {position} {position}"
    assert lines[2] == f"redis-cli XPENDING {LOG} {OTHER} {position} {position} 1"
    redis = redis_of(fresh)
    redis.response_callbacks.clear()  # replies as redis-cli shows them
    replies = [redis.execute_command(*shlex.split(line)[1:]) for line in lines]
    assert [name for name, _ in replies[0]] == [position]
    assert [[pending[:2] for pending in reply] for reply in replies[1:3]] == [[[position, REPLICA]], []]
    assert [group[:2] for group in replies[3]] == [["name", REPLICA], ["name", OTHER]]
    for index, line in enumerate(lines):
        page.locator("#entry-commands button").nth(index).click()
        waited(page, lambda line=line: text(page, "#entry-copied") == f"Copied: {line}")
        assert page.evaluate("navigator.clipboard.readText()") == line
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as by HTTP from elsewhere
    page.locator("#entry-commands button").first.click()
    waited(page, lambda: text(page, "#entry-copied") == f"Copied: {lines[0]}")
    other = context.new_page()
    go(other, fresh.client_url)
    assert other.evaluate("navigator.clipboard.readText()") == lines[0]
    context.close()


def test_names_are_quoted_for_the_shell(script: Page) -> None:
    for name in ["{lab14}:log", "a b", "it's", "$(reboot)", "`x`", 'a"b', "a;b", "-", "é", "a\nb", ""]:
        lines = script.evaluate(COMMANDS, [name, "1-42", [name]])
        assert [shlex.split(line) for line in lines] == [
            ["redis-cli", "XRANGE", name, "1-42", "1-42"],
            ["redis-cli", "XPENDING", name, name, "1-42", "1-42", "1"],
            ["redis-cli", "XINFO", "GROUPS", name],
        ]


def highlighted(page: Page) -> list[str]:
    return list(page.evaluate("import('/console/highlight.js').then((found) => [...found.highlighted.positions])"))


def test_the_sheet_closes_and_the_focus_returns(page: Page, fresh: Lab) -> None:
    position = write(fresh)
    button(page, position).wait_for()
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.click("#entry-close")):
        opened(page, position)
        assert text(page, "#entry-title") == position
        assert page.evaluate("document.activeElement.id") == "entry-close"
        assert highlighted(page) == [position]
        close()
        assert not page.is_visible("#entry")
        assert highlighted(page) == []
        assert button(page, position).evaluate("one => one === document.activeElement")


def test_a_highlight_stays_on_a_state_that_is_shown_anew_and_ends(page: Page) -> None:
    spotlit = "[...document.querySelectorAll('.spotlit')].map((one) => one.id || one.cells[0].textContent)"
    call = "([given]) => import('/console/highlight.js').then(({ highlight }) => highlight(given ?? undefined))"
    page.locator(f"#now tr:has(th:text-is('{OTHER}'))").wait_for()
    page.evaluate(call, [{"nodes": [OTHER], "ids": ["strip", "no such element"]}])
    assert page.evaluate(spotlit) == [OTHER, "strip"]
    page.evaluate("window.row = document.querySelector('#now tbody tr')")
    waited(page, lambda: not page.evaluate("window.row.isConnected"))
    assert page.evaluate(spotlit) == [OTHER, "strip"]
    page.evaluate(call, [None])
    assert page.evaluate(spotlit) == []


def test_entries_are_reached_by_the_keyboard_and_stand_still_meanwhile(page: Page, fresh: Lab) -> None:
    positions = [write(fresh) for _ in range(3)]
    button(page, positions[-1]).wait_for()
    page.locator("#entries button[tabindex='0']").focus()
    assert page.locator("#entries button[tabindex='0']").count() == 1
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.querySelector('code').textContent") == positions[1]
    before = page.locator("#entries code").all_inner_texts()
    position = write(fresh)
    page.locator("#strip-held").wait_for(state="visible")
    assert page.locator("#entries code").all_inner_texts() == before
    page.keyboard.press("Enter")
    waited(page, lambda: text(page, "#entry-title") == positions[1])
    button(page, position).wait_for()  # the focus is in the sheet now
    page.keyboard.press("Escape")
    assert button(page, positions[1]).evaluate("one => one === document.activeElement")


def test_only_entries_since_a_reset_are_shown(page: Page, fresh: Lab) -> None:
    button(page, write(fresh)).wait_for()
    post(f"{fresh.primary_url}/admin/reset")
    position = write(fresh)
    button(page, position).wait_for()
    assert page.locator("#entries code").all_inner_texts() == [name for name, _ in redis_of(fresh).xrange(LOG)]


def test_the_strip_shows_as_many_entries_as_fit_and_reuses_their_elements(page: Page, fresh: Lab) -> None:
    positions = [write(fresh) for _ in range(40)]
    button(page, positions[-1]).wait_for()
    shown = page.locator("#entries code").all_inner_texts()
    assert 5 < len(shown) < 40
    assert shown == positions[-len(shown) :]
    left, right = page.evaluate(
        """() => {
            const list = document.getElementById("entries");
            const [all, first, last] = [list, list.firstElementChild, list.lastElementChild].map(
                (one) => one.getBoundingClientRect());
            return [first.left - all.left, all.right - last.right];
        }"""
    )
    assert 0 <= left < 120
    assert right == pytest.approx(0, abs=1)
    page.evaluate("window.known = new Set(document.querySelectorAll('#entries button'))")
    last = [write(fresh) for _ in range(5)][-1]
    button(page, last).wait_for()
    assert page.evaluate("[...document.querySelectorAll('#entries button')].every((one) => window.known.has(one))")
