"""Space-time diagrams: a lane for each process, time downwards, and arrows between lanes; as text and as SVG."""

import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

from lab.terminal import plain

_TIME_COLUMNS = 12
_WORDS_COLUMNS_MIN = 24
_GAP_US = 1_000_000  # a longer pause between two events gets a row of its own
_ROW, _LINE, _HEAD, _LANE, _TIME, _WORDS, _EDGE = 30, 18, 56, 118, 84, 430, 24  # pixels
_WORDS_CHARACTERS = 62  # of a line in the SVG
_STYLE = """
svg { color-scheme: light dark; font: 14px system-ui, sans-serif; --ink: #1d2733; --faint: #66717e; --line: #c3cbd4;
  --paper: #ffffff; --mark: #0b63c5; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6ebf1; --faint: #98a4b1; --line: #47525e; --paper: #14191f; --mark: #6db3ff; } }
.paper { fill: var(--paper); } text { fill: var(--ink); } .time { fill: var(--faint); text-anchor: end;
  font-variant-numeric: tabular-nums; } .lane { text-anchor: middle; font-weight: 600; }
.line { stroke: var(--line); stroke-width: 2; } .gap { fill: var(--faint); text-anchor: middle; }
.to { stroke: var(--mark); stroke-width: 2; } .point, .tip { fill: var(--mark); }
.row { stroke: var(--line); stroke-dasharray: 1 5; }
"""


class Event(NamedTuple):
    """What happened in a lane; ``to``: the lane that it reaches. ``at_us``: microseconds since any moment."""

    at_us: int
    lane: str
    words: str
    to: str | None = None

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def as_text(events: Sequence[Event], lanes: Sequence[str], width: int = 100) -> str:
    """Draw the lanes that have events, at most ``width`` columns wide if words can be broken so short."""
    lanes = _used(events, lanes)
    if not lanes:
        return ""
    apart = max(6, max(len(plain(lane)) for lane in lanes) + 2)
    columns = {lane: apart // 2 + apart * index for index, lane in enumerate(lanes)}
    broken_at = max(_WORDS_COLUMNS_MIN, width - _TIME_COLUMNS - apart * len(lanes) - 2)
    lines = [" " * _TIME_COLUMNS + "".join(plain(lane, keep="").center(apart) for lane in lanes)]
    for event, gap in _ordered(events):
        if gap:
            lines.append(" " * _TIME_COLUMNS + _drawn(columns, apart, "┆"))
        first, *rest = textwrap.wrap(plain(event.words, keep=""), broken_at) or [""]
        lines.append(f"{_seconds(event.at_us):>{_TIME_COLUMNS - 1}} {_drawn(columns, apart, '│', event)}  {first}")
        lines += [f"{' ' * _TIME_COLUMNS}{_drawn(columns, apart, '│')}  {line}" for line in rest]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def as_svg(events: Sequence[Event], lanes: Sequence[str]) -> str:
    """Draw one self-contained picture, for light and dark pages."""
    lanes = _used(events, lanes)
    at_x = {lane: _TIME + _LANE // 2 + _LANE * index for index, lane in enumerate(lanes)}
    words_x = _TIME + _LANE * len(lanes) + 8
    rows, y = [], _HEAD
    for event, gap in _ordered(events):
        if gap:
            rows += [_pause(x, y) for x in at_x.values()]
            y += _LINE
        lines = textwrap.wrap(plain(event.words, keep=""), _WORDS_CHARACTERS) or [""]
        rows += _row(event, at_x, words_x, y, lines)
        y += _ROW + _LINE * (len(lines) - 1)
    width, bottom = words_x + _WORDS + _EDGE, y - _ROW // 2 + 8
    named = [
        f'<line class="line" x1="{x}" y1="{_HEAD - 20}" x2="{x}" y2="{bottom}"/>'
        f'<text class="lane" x="{x}" y="{_HEAD - 30}">{_escaped(lane)}</text>'
        for lane, x in at_x.items()
    ]
    size = f'width="{width}" height="{bottom + _EDGE}" viewBox="0 0 {width} {bottom + _EDGE}"'
    body = "\n".join([f'<rect class="paper" width="{width}" height="{bottom + _EDGE}"/>', *named, *rows])
    title = f"<title>Space-time diagram of {_escaped(', '.join(lanes))}</title>"
    opened = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>'
    return f"{opened}\n{title}\n<style>{_STYLE}</style>\n{body}\n</svg>\n"


def _used(events: Sequence[Event], lanes: Sequence[str]) -> list[str]:
    reached = {lane for event in events for lane in (event.lane, event.to)}
    return [lane for lane in lanes if lane in reached]


def _ordered(events: Sequence[Event]) -> Iterator[tuple[Event, bool]]:
    """Yield the events in time order, each with whether a long pause precedes it."""
    before_us: int | None = None
    for event in sorted(events, key=lambda found: found.at_us):
        yield event, before_us is not None and event.at_us - before_us > _GAP_US
        before_us = event.at_us


def _drawn(columns: dict[str, int], apart: int, line: str, event: Event | None = None) -> str:
    drawn = [" "] * (apart * len(columns))
    for column in columns.values():
        drawn[column] = line
    if event is not None:
        start, end = columns[event.lane], columns[event.to or event.lane]
        for column in range(min(start, end), max(start, end)):
            drawn[column] = "─"
        drawn[end] = "▶" if start < end else "◀"
        drawn[start] = "●"
    return "".join(drawn)


def _row(event: Event, at_x: dict[str, int], words_x: int, y: int, lines: list[str]) -> Iterator[str]:
    start, end = at_x[event.lane], at_x[event.to or event.lane]
    yield f'<line class="row" x1="{max(start, end)}" y1="{y}" x2="{words_x - 8}" y2="{y}"/>'
    yield f'<text class="time" x="{_TIME - 4}" y="{y + 5}">{_seconds(event.at_us)}</text>'
    if start != end:
        back = -8 if start < end else 8
        yield f'<line class="to" x1="{start}" y1="{y}" x2="{end + back}" y2="{y}"/>'
        yield f'<path class="tip" d="M{end} {y} l{back * 1.4:g} -6 v12 z"/>'
    yield f'<circle class="point" cx="{start}" cy="{y}" r="5"/>'
    spans = [
        f'<tspan x="{words_x}" y="{y + 5 + _LINE * index}">{_escaped(line)}</tspan>' for index, line in enumerate(lines)
    ]
    yield f"<text>{''.join(spans)}</text>"


def _pause(x: int, y: int) -> str:
    hidden = f'<rect class="paper" x="{x - 4}" y="{y - 9}" width="8" height="14"/>'
    return f'{hidden}<text class="gap" x="{x}" y="{y + 3}">⋮</text>'


def _seconds(at_us: int) -> str:
    return f"{at_us / 1e6:.3f} s"


def _escaped(text: str) -> str:
    return escape(plain(text, keep=""))
