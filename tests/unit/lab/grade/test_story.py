"""The story of a level."""

from broker.position import Position
from lab.grade.judges import judge
from lab.grade.story import LANES, Story, tell
from lab.report.spacetime import as_text
from tests.unit.lab.grade.run import Run, correct
from tests.unit.lab.grade.test_judges import delayed, hole, killed


def told(run: Run) -> Story:
    return tell(run.record, judge(run.record))


def test_an_acknowledged_entry_that_is_missing_after_a_kill() -> None:
    run = killed(3)
    run.mark(3305, "grader", "started again")
    run.forget("ü")
    run.end(5000)
    story = told(run)
    assert story.words == "1-4 was acknowledged at 3.214 s; killed at 3.215 s; after the restart key ü is missing"
    assert as_text(story.events, LANES).splitlines() == [
        "              grader    log    replica   reader",
        '    0.040 s     │        ●        │        │      1-4: ü = "v4"',
        "                ┆        ┆        ┆        ┆",
        "    3.214 s     │        ◀────────●        │      acknowledged 1-4",
        "    3.215 s     ●─────────────────▶        │      killed",
        "    3.305 s     ●─────────────────▶        │      started again",
        "    3.317 s     │        │        ●────────▶      at 1-4: no ü",
    ]


def test_what_was_done_to_the_log_is_part_of_the_story() -> None:
    run = hole()
    run.read(1500, "1-8", "k1", value="1-2", version=1)
    assert [(event.lane, event.words, event.to) for event in told(run).events] == [
        ("log", '1-5: k1 = "v5"', None),
        ("log", '1-8: ü = "v8"', None),
        ("log", "trimmed", None),
        ("replica", 'at 1-8: k1 = "1-2", version 1', "reader"),
    ]


def test_many_acts_are_cut_to_the_last_ones() -> None:
    run = correct(2)
    for number in range(50):
        run.mark(900 + number, "grader", f"act {number}")
    run.poll(1000, "1-7")
    acts = [event.words for event in told(run).events if event.lane == "grader"]
    assert acts == [f"act {number}" for number in range(42, 50)]


def test_a_fault_without_a_read_has_the_acts_until_the_end() -> None:
    run = correct(2)
    run.more["pending"] = (Position(1, 0),)
    run.mark(1000, "grader", "suspended")
    assert [event.words for event in told(run).events] == ["started", "suspended"]
    assert told(run).words == "at the end 1-0 is delivered, but not acknowledged"


def test_what_was_measured_is_told_of_a_level_that_is_passed() -> None:
    assert told(delayed()) == Story("p99 of the lateness between 0.0 and 6.0 ms, of 100 entries", [])
    assert told(correct(2)) == Story("", [])


def test_what_was_not_tested_is_told() -> None:
    run = Run(5)
    run.poll(10, None, "connection refused")
    assert told(run) == Story("nothing was tested: early, late; connection refused", [])
