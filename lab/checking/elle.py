"""A history in the format of elle-cli: transactions of one operation each, for its model ``rw-register``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.checking.history import History, Operation
from lab.errors import LabError


def events(history: History) -> list[dict[str, Any]]:
    """Return an invocation and a completion per write and read, in time order.

    Every write has a unique number, which is the value that a read shows: ``null`` before the first.
    """
    number = {write.index: n for n, write in enumerate((w for w in history.operations if w.kind == "write"), 1)}
    moments: list[tuple[int, int, int, dict[str, Any]]] = []
    for found in history.operations:
        if found.kind not in {"write", "read"}:
            continue
        invoked, completed = _micro_operations(found, history, number)
        common = {"process": found.session, "f": "txn"}
        kind = {"ok": "ok", "fail": "fail", "unknown": "info"}[found.outcome]
        moments.append((found.invoked_us, 1, found.index, {**common, "type": "invoke", "value": [invoked]}))
        moments.append((found.returned_us, 0, found.index, {**common, "type": kind, "value": [completed]}))
    moments.sort(key=lambda moment: moment[:3])
    return [{"index": index, "time": at_us * 1000, **event} for index, (at_us, _, _, event) in enumerate(moments)]


def _micro_operations(found: Operation, history: History, number: dict[int, int]) -> tuple[list[Any], list[Any]]:
    if found.kind == "write":
        written = ["w", found.key, number[found.index]]
        return written, written
    write = history.writer.get((found.key, found.seen)) if found.outcome == "ok" and found.version else None
    return ["r", found.key, None], ["r", found.key, None if write is None else number[write.index]]


def export(history: History, path: Path) -> None:
    """Write the events as a JSON array. Raises ``LabError``."""
    try:
        path.write_text(json.dumps(events(history), ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise LabError(f"the history cannot be exported: {error}") from None
