"""Which branches that recover from something were taken in runs, and which never.

A branch is known by one line of its source. Nothing of the nodes changes for it, and nothing of a run.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nodes

_ROOT = Path(nodes.__file__).parents[1]
_NAMES = ("reader", "applier", "store", "replica")
_READER, _APPLIER, _REPLICA_STORE, _REPLICA = (f"nodes/replica/{name}.py" for name in _NAMES)
_STORE, _UPKEEP = "nodes/runtime/store.py", "nodes/primary/upkeep.py"


class Branch(NamedTuple):
    """``text``: a line that occurs once in its file, without its comment. ``meaning``: what the branch recovers from.

    The branch is taken when the line is executed or, if it starts a block, as ``if`` does, when the block is entered.
    """

    file: str
    text: str
    meaning: str


BRANCHES = (
    Branch(_READER, "except LogError:", "a command to the log failed, or its reply was lost"),
    Branch(_READER, 'self._resync("requested")', "a user requested a snapshot"),
    Branch(_READER, "except PositionLost:", "entries are missing"),
    Branch(
        _READER,
        "if self._log.head().position > self.state.last and not self._log.history.after(self.state.last, 1):",
        "everything after the replica's position was trimmed, so no entry shows the gap",
    ),
    Branch(_READER, "if head < seen:", "the log ends before what this replica has seen"),
    Branch(_READER, "if self._is_of_another_history():", "the log was lost and started over"),
    Branch(_READER, "while page := self._group.pending(after, _BATCH):", "entries were pending when the reader joined"),
    Branch(
        _READER,
        "if self._group.last_delivered() > self.state.last:",
        "delivered entries are neither pending nor in the store",
    ),
    Branch(
        _READER,
        "if lost and not self._is_reset_after(lost[-1]):",
        "a pending entry was trimmed before it was read",
    ),
    Branch(
        _READER,
        "elif not redelivered and self._count_redelivered([entry.position]):",
        "a new delivery of an entry that is applied or void",
    ),
    Branch(_READER, "if arrival is Arrival.GAP:", "an entry does not follow the newest one"),
    Branch(
        _READER,
        "if self.state.delivered > (entry.goes_on_from or entry.position):",
        "an epoch continues from before what this replica has seen",
    ),
    Branch(_READER, "elif self._inbox.wait_until_empty():", "an epoch continues with the content of this replica"),
    Branch(_READER, 'self._resync("gap")', "a gap that is still there after rewinding"),
    Branch(
        _READER,
        '_logger.warning("gap after %s: reading again from there", self.state.last)',
        "a gap that may be closed",
    ),
    Branch(
        _READER,
        'if self._inbox.hold(Entry(taken.position, op, "", "", taken.write_id, taken.at_us)):',
        "a snapshot is installed",
    ),
    Branch(_APPLIER, 'if entry.op == "epoch":', "a reset after entries were applied out of order"),
    Branch(_APPLIER, 'if entry.op == "delete":', "a delete is applied out of order, before older entries"),
    Branch(_APPLIER, "except StoreError:", "the store failed while applying"),
    Branch(_APPLIER, "if generation != self._generation:", "a snapshot has replaced the store since the last batch"),
    Branch(
        _APPLIER,
        "after, progress = self._progress.after(before, entries)",
        "entries do not follow the store: out of order, or a snapshot came in between",
    ),
    Branch(
        _REPLICA_STORE,
        "if not before.position.is_followed_by_all(entry.position for entry in entries):",
        "the store moved while a batch was being applied",
    ),
    Branch(
        _REPLICA_STORE,
        "if generation != self.generation or _state(db) != before:",
        "the store moved while a batch was being merged",
    ),
    Branch(_REPLICA, "except StoreDamaged:", "the store is found damaged while it is in use: the process ends"),
    Branch(_STORE, "except sqlite3.Error:", "SQLite cannot open the file"),
    Branch(_STORE, "path.replace(kept)", "a damaged file is quarantined"),
    Branch(_STORE, "if time.monotonic() >= deadline:", "another process keeps the directory locked"),
    Branch(_STORE, "time.sleep(0.05)", "the former process has not exited yet"),
    Branch(
        _STORE,
        'if self._writer.execute("PRAGMA user_version").fetchone()[0] == 0:',
        "there is no store: it is new, lost or quarantined",
    ),
    Branch(_STORE, "except (OSError, sqlite3.Error) as error:", "the store cannot be opened"),
    Branch(_STORE, "if found not in {0, version}:", "the file has another schema version"),
    Branch(_STORE, "if names != (tables if found else set()):", "the file lacks tables, or has foreign ones"),
    Branch(_STORE, "if is_damage(error):", "SQLite reports damage when the file is checked"),
    Branch(_STORE, "except sqlite3.Error as error:", "SQLite refused a read or a write, which is rolled back"),
    Branch(_UPKEEP, "if not self._log.is_verified():", "the log server was restarted or replaced"),
    Branch(
        _UPKEEP,
        "elif self._is_new and self._parts.link.address.moves:",
        "this primary was started, and the log can be one that was left",
    ),
    Branch(
        _UPKEEP,
        "if silent and self._is_new:",
        "this primary was started, and an epoch can be lost that a silent replica has seen",
    ),
    Branch(_UPKEEP, "elif foreign is not None:", "another program added an entry"),
    Branch(
        _UPKEEP,
        "if self._log.history.foreign() is not None or ahead > self._log.head().position:",
        "the verified log ends before what a node has seen, or what another program added",
    ),
    Branch(_UPKEEP, "self._pause(_PAUSE_SECONDS)", "a replica has not reported yet: the primary asks it again"),
    Branch(_UPKEEP, "except LogMissing:", "the server holds no log"),
    Branch(_UPKEEP, "if cut:", "the damaged end of the log's file was dropped"),
    Branch(_UPKEEP, "elif silent:", "a replica did not report what it had seen"),
    Branch(_UPKEEP, "elif known > before:", "the log lost entries that a node had seen"),
    Branch(
        _UPKEEP,
        'reason = "the log server was replaced, and the writes before that may not all have reached this one"',
        "another log server took over, and may lack writes",
    ),
    Branch(_UPKEEP, "if isinstance(reply, PeerError) or reply.status != 200:", "a replica does not respond"),
    Branch(_UPKEEP, "except (KeyError, TypeError, ValueError):", "a replica's answer cannot be read"),
    Branch(_UPKEEP, "if through > 0:", "the log is longer than it is kept"),
    Branch(_UPKEEP, "others_bytes = memory.used_bytes - memory.log_bytes", "the log server's memory is limited"),
)


@contextmanager
def recording() -> Iterator[Counter[Branch]]:
    """Count how often each branch is taken meanwhile. A debugger or a measurement of coverage sees nothing of it."""
    taken: Counter[Branch] = Counter()
    lines: dict[str, dict[int, Branch]] = {}
    for branch, place in _places().items():
        lines.setdefault(str(_ROOT / branch.file), {})[place.line] = branch
    tracers = {file: _tracer(of_file, taken) for file, of_file in lines.items()}
    before = sys.gettrace()
    # It holds for all tasks, because greenlets share the trace function of their thread.
    sys.settrace(lambda frame, _event, _arg: tracers.get(frame.f_code.co_filename))
    try:
        yield taken
    finally:
        sys.settrace(before)


def _tracer(branches: Mapping[int, Branch], taken: Counter[Branch]) -> Callable[..., Any]:
    def trace(frame: Any, event: str, _arg: object) -> Any:
        if event == "line" and (branch := branches.get(frame.f_lineno)) is not None:
            taken[branch] += 1
        return trace

    return trace


def where(branch: Branch) -> str:
    """Return a branch's module and function."""
    return f"{branch.file.removesuffix('.py').replace('/', '.')}:{_places()[branch].function}"


class _Place(NamedTuple):
    line: int
    function: str


@cache
def _places() -> dict[Branch, _Place]:
    sources = {branch.file: (_ROOT / branch.file).read_text(encoding="utf-8") for branch in BRANCHES}
    return {branch: _find(branch, sources[branch.file]) for branch in BRANCHES}


def _find(branch: Branch, source: str) -> _Place:
    """Raise ``AssertionError`` unless the text occurs exactly once."""
    found = [n for n, line in enumerate(source.splitlines(), 1) if line.split("  #")[0].strip() == branch.text]
    if len(found) != 1:
        raise AssertionError(f"{branch.file} has {len(found)} lines {branch.text!r}, not one")
    line, names = found[0], []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.lineno <= found[0] <= (node.end_lineno or 0):
            names.append(node.name)
        if isinstance(node, ast.If | ast.While | ast.ExceptHandler) and node.lineno == found[0]:
            line = node.body[0].lineno
    return _Place(line, ".".join(names))
