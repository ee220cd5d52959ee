"""docs/tour.md follows one write: it names the modules that run, in execution order."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, cast

from broker.connection import connect
from broker.position import Position
from nodes.http.writing import WriteBody
from nodes.primary.app import create_app
from nodes.replica.history import Done
from nodes.runtime.config import PrimaryConfig, load
from nodes.runtime.gate import State
from tests.support.logserver import LogServer
from tests.support.replica import Bench

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
_MODULES_MAX, _LINES_MAX = 14, 2000


KEY = "followed"


def carries(value: Any, depth: int = 4) -> bool:
    """Whether a value is or contains the followed write: its key, its entry or its position."""
    if isinstance(value, str | bytes):
        return value in {KEY, "1-2", KEY.encode()}
    if isinstance(value, Position):
        return value == Position(1, 2)
    if depth and isinstance(value, Mapping):
        return any(carries(item, depth - 1) for pair in value.items() for item in pair)
    if depth and isinstance(value, Sequence):
        return any(carries(item, depth - 1) for item in value)
    return depth > 0 and isinstance(value, WriteBody | State | Done) and carries(vars(value), depth - 1)


@contextmanager
def recorded() -> Iterator[tuple[list[str], list[str]]]:
    """Record modules in the order in which their functions first run, in this thread.

    The first list has the modules that receive or return the write, the second all modules.
    """
    given: dict[str, None] = {}
    ran: dict[str, None] = {}

    def record(frame: FrameType, event: str, returned: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event not in {"call", "return"} or frame.f_code.co_name == "<module>" or not path.is_relative_to(ROOT):
            return
        module = path.relative_to(ROOT).as_posix()
        if module.startswith(("broker/", "nodes/")):
            ran.setdefault(module)
            arguments = [value for name, value in frame.f_locals.items() if name != "self"] if event == "call" else []
            if module not in given and carries([*arguments, returned]):
                given.setdefault(module)

    found: tuple[list[str], list[str]] = [], []
    sys.setprofile(record)
    try:
        yield found
    finally:
        sys.setprofile(None)
        found[0].extend(given)
        found[1].extend(ran)


def section(title: str) -> list[str]:
    """Return the modules that head the paragraphs of a section."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", TOUR, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\*\*\[([\w./]+)\]\(\.\./\1\)", text, re.MULTILINE)


def test_the_tour_names_the_modules_that_a_write_runs_through_in_their_order(server: LogServer, tmp_path: Path) -> None:
    url = server.url
    app = create_app(cast("PrimaryConfig", load("primary", {"LAB_REDIS_URL": url})))
    app.extensions["node"]._step()
    http = app.test_client()
    replica = Bench(connect(url), tmp_path)
    try:
        http.post("/data", json={"key": "other", "value": 1})
        replica.catch_up()
        with recorded() as (given, ran):
            assert http.post("/data", json={"key": KEY, "value": 2}).json["version"] == 2  # type: ignore[index]
            replica.catch_up(rounds=1)
        assert replica.position() == "1-2"
        assert replica.pending() == 0
    finally:
        replica.close()
    path = [module for module in given if not module.startswith(("nodes/http/", "nodes/runtime/"))]
    script = lines("broker/append.lua")
    on_path, in_all = (script + sum(map(lines, modules)) for modules in (path, ran))
    print(f"the path of a write: {len(path)} modules, {on_path:,} lines", end="; ")
    print(f"with all that runs: {len(ran)} modules, {in_all:,} lines")
    assert section("The path") == path
    assert section("What else runs") == [module for module in ran if module not in path]
    assert len(path) <= _MODULES_MAX
    assert on_path <= _LINES_MAX


def lines(module: str) -> int:
    return (ROOT / module).read_text(encoding="utf-8").count("\n")
