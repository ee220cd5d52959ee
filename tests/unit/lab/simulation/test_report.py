"""The result of simulated runs, for programs and for people."""

import io
import json
from collections import Counter
from xml.etree import ElementTree

import pytest
from rich.console import Console

from lab.report.spacetime import Event
from lab.simulation import report
from lab.simulation.branches import BRANCHES
from lab.simulation.run import SHORT, Failure, Outcome
from lab.simulation.schedule import KINDS, Fault
from lab.simulation.world import PRIMARY

FAULT = Fault(3, 8.5, "log_restart", 0, 0.5, 0.25)
TOLD = Event(8_500_000, "log1", "is killed, for 1.53 s")
WORDS = 'the key "<k>" & \x1b[31mothers'


@pytest.fixture
def failure() -> Failure:
    events = [Event(number, PRIMARY, f"event {number}") for number in range(50)]
    events += [TOLD, Event(9_000_000, "lab14-replica1", WORDS, "log1")]
    return Failure(14, 40.0, SHORT, "positions have no gaps", "log1 has 1-3", 3725.4, [FAULT], [TOLD], events)


def outcome(failure: Failure | None = None) -> Outcome:
    found = Outcome(14, 1800.0, 1000, Counter({"acknowledged": 700, "reads at level strong": 3}), [FAULT], [TOLD])
    found.met[FAULT.kind, "reading"] = 2
    found.failure = failure
    return found


def shown(part: object) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(part)
    return console.export_text()


def test_a_summary_adds_up_its_runs(failure: Failure) -> None:
    found = report.Summary()
    found.add(outcome(), Counter({BRANCHES[0]: 2}))
    found.add(outcome(failure), Counter({BRANCHES[0]: 1}))
    text = shown(report.summary(found))
    assert "2 runs of 1:00:00 in all: 2,000 steps, 2 faults, 0 quiet points" in text
    assert "1,400 writes acknowledged, 0 entries applied, 0 snapshots installed, 6 reads" in text
    assert "lost by a fault" not in text

    as_json = json.loads(json.dumps(found.as_json()))
    assert (as_json["runs"], as_json["seconds"], as_json["counts"]["acknowledged"]) == (2, 3600.0, 1400)
    assert as_json["met"].keys() == set(KINDS)
    assert as_json["met"]["log_restart"]["reading"] == 4
    assert not any(as_json["met"]["kill"].values())
    assert as_json["branches"] == {branch.meaning: 3 * (branch is BRANCHES[0]) for branch in BRANCHES}
    assert [one["seed"] for one in as_json["failures"]] == [14]


def test_the_table_of_faults_has_every_kind_and_the_states_that_any_met() -> None:
    lines = [line.split() for line in shown(report.coverage(Counter({("kill", "resyncing"): 12}))).splitlines()]
    rows = lines[lines.index(["fault", "resyncing"]) + 1 :]
    cells = {" ".join(words): cell for *words, cell in rows}
    assert cells.keys() == {kind.replace("_", " ") for kind in KINDS}
    assert {name for name, cell in cells.items() if cell != "·"} == {"kill"}
    assert cells["kill"] == "12"


def test_a_failure_is_shown_with_its_faults_and_what_happened_last(failure: Failure) -> None:
    text = shown(report.failure(failure, 160))
    assert "Seed 14 violates: positions have no gaps\nafter 1:02:05: log1 has 1-3\n\n1 fault:\n" in text
    assert "     8.500 s  log1 is killed, for 1.53 s" in text
    assert 'the key "<k>" & ' in text
    assert "\x1b" not in text
    assert "event 11" not in text, "which is not one of the last 40"
    assert "event 12" in text


def test_a_failure_as_json_has_everything_that_repeats_and_explains_it(failure: Failure) -> None:
    found = json.loads(json.dumps(report.failure_json(failure)))
    assert Fault(**found["faults"][0]) == FAULT
    assert found["told"] == [{"at_us": 8_500_000, "lane": "log1", "words": TOLD.words, "to": None}]
    assert len(found["events"]) == 52
    assert [found[name] for name in ("seed", "rule", "at_seconds")] == [14, failure.rule, 3725.4]


def test_the_picture_of_a_failure_is_xml_with_the_words_as_they_are(failure: Failure) -> None:
    picture = ElementTree.fromstring(report.picture(failure))  # noqa: S314 - its own
    texts = [text for element in picture.iter() if (text := element.text)]
    assert any(text.startswith('the key "<k>" & ') for text in texts)
    assert {"log1", PRIMARY, "lab14-replica1"} <= set(texts)
    assert "lab14-replica2" not in texts
