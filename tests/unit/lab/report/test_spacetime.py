"""Space-time diagrams, as text and as SVG."""

from xml.etree import ElementTree

import pytest

from lab.report.spacetime import Event, as_svg, as_text

LANES = ("log", "replica", "reader")
EVENTS = [
    Event(3_214_000, "replica", "acknowledged 1-17", "log"),
    Event(3_100_000, "log", "1-17: k5"),
    Event(3_215_000, "replica", "killed"),
    Event(5_000_000, "log", "1-18", "reader"),
]


def test_text_has_lanes_as_columns_and_time_downwards() -> None:
    assert as_text(EVENTS, (*LANES, "unused")).splitlines() == [
        "               log    replica   reader",
        "    3.100 s     ●        │        │      1-17: k5",
        "    3.214 s     ◀────────●        │      acknowledged 1-17",
        "    3.215 s     │        ●        │      killed",
        "                ┆        ┆        ┆",
        "    5.000 s     ●─────────────────▶      1-18",
    ]


def test_text_is_as_wide_as_asked_and_breaks_words() -> None:
    drawn = as_text([Event(0, "log", "many words " * 20), *EVENTS], LANES, width=80)
    assert max(map(len, drawn.splitlines())) <= 80
    assert drawn.count("many") == 20
    assert all(line[16] in "●│◀┆" for line in drawn.splitlines()[1:])


def test_nothing_is_drawn_without_events() -> None:
    assert as_text([], LANES) == ""
    ElementTree.fromstring(as_svg([], LANES))  # noqa: S314 - made here


@pytest.mark.parametrize("words", ["\x1b[2J\nx", "<script>alert(1)</script>&\"'", "\ud800\x00"])
def test_words_are_neither_markup_nor_control_characters(words: str) -> None:
    events = [Event(0, "log", words)]
    assert "\x1b" not in as_text(events, LANES)
    assert len(as_text(events, LANES).splitlines()) == 2
    drawn = as_svg(events, LANES)
    assert "<script" not in drawn
    root = ElementTree.fromstring(drawn.encode())  # noqa: S314 - made here
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
        *("svg", "title", "style", "rect", "line", "text", "tspan", "circle", "path")
    }


def test_svg_has_every_event_and_loads_nothing() -> None:
    drawn = as_svg(EVENTS, LANES)
    for event in EVENTS:
        assert f">{event.words}</tspan>" in drawn
    assert drawn.count('class="to"') == 2
    assert drawn.count("http") == 1
    assert "prefers-color-scheme: dark" in drawn
