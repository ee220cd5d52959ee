"""Builds of the lab with one deliberate bug each, and the tests that catch them: ``make broken``.

A test that cannot fail proves nothing. Each build is a copy with one bug; the fast tests of broker and nodes and a
short torture run execute against it, and at least one of them must fail.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_COPIED = ("broker", "nodes", "lab", "tests", "docs", "deploy", "setup.cfg", "pyproject.toml")
_FAST = ("tests/unit/nodes", "tests/unit/broker", "tests/contract")
_TESTS_SECONDS, _TORTURE_SECONDS = 300, 300


@dataclass(frozen=True)
class Build:
    """A bug: in ``path`` the text ``before`` becomes ``after``."""

    name: str
    path: str
    before: str
    after: str


BUILDS = (
    Build(
        "returns the oldest answer of a quorum",
        "nodes/client/levels.py",
        "    best = max(found, ",
        "    best = min(found, ",
    ),
    Build(
        "acknowledges before it commits",
        "nodes/replica/applier.py",
        "            state = self._apply(entries)\n",
        "            parts.acknowledger.add(entries)\n            state = self._apply(entries)\n",
    ),
    Build(
        "applies on arrival, without order",
        "broker/delay/line.py",
        'return self._schedule is not None and self._schedule.order == "arrival"',
        "return True",
    ),
    Build(
        "applies before it is due",
        "broker/delay/line.py",
        "return max(entry.at_us + delay_us, self._not_before_us)",
        "return entry.at_us",
    ),
    Build(
        "ignores a gap",
        "broker/position.py",
        "return other.version == self.version + 1",
        "return other.version > self.version",
    ),
    Build(
        "forgets the epoch",
        "nodes/replica/store.py",
        '        if entry.op == "epoch":\n            db.execute("DELETE FROM data")\n            last.clear()\n',
        '        if entry.op == "epoch":\n            pass\n',
    ),
    Build(
        "treats a repeated write as a new one",
        "broker/append.lua",
        "if known then",
        "if known and false then",
    ),
    Build(
        "appends to a log that lost its tail",
        "nodes/primary/upkeep.py",
        "known = max(seen, self._parts.gate.state.position)",
        "known, silent = START, []",
    ),
    Build(
        "reports a write of unknown outcome as not applied",
        "nodes/http/peers.py",
        "sent=repeated or not refused",
        "sent=not refused",
    ),
    Build(
        "does not renew the fence when another log server takes over",
        "broker/append.lua",
        "if not head[6] or head[6] ~= replication_id() or",
        "if not head[6] or",
    ),
    Build(
        "acknowledges without awaiting the copies",
        "broker/log.py",
        "not (isinstance(confirmed, int) and confirmed >= copies)",
        "not isinstance(confirmed, int)",
    ),
    Build(
        "takes READONLY for applied",
        "broker/log.py",
        "        except exceptions.NoScriptError:\n",
        "        except exceptions.ReadOnlyError:\n"
        '            return [["applied", 1, 1, 0]]\n'
        "        except exceptions.NoScriptError:\n",
    ),
)


def make(build: Build, directory: Path) -> None:
    """Write a copy of the lab with the bug."""
    copy(directory)
    file = directory / build.path
    text = file.read_text(encoding="utf-8")
    if text.count(build.before) != 1:
        raise AssertionError(
            f"{build.path} does not contain exactly once what {build.name!r} changes: update the build"
        )
    file.write_text(text.replace(build.before, build.after), encoding="utf-8")


def copy(directory: Path) -> None:
    """Copy what the tests need."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)


def failing_tests(directory: Path) -> list[str]:
    """Return the first fast tests that fail."""
    options = ["-q", "-n", "auto", "--dist", "loadgroup", "--timeout", "20", "-p", "no:cacheprovider", "--maxfail", "3"]
    line = ["-m", "pytest", *options, *_FAST]
    done = _run(directory, line, _TESTS_SECONDS)
    return [text.split(" - ")[0].split("::")[-1] for text in done.stdout.splitlines() if text.startswith("FAILED ")]


def torture(directory: Path, seconds: float = 20, seed: int = 14) -> list[str]:
    """Return the violations that a torture run finds."""
    done = _run(
        directory, ["-m", "lab", "torture", "--json", "--seed", str(seed), "--seconds", str(seconds)], _TORTURE_SECONDS
    )
    if done.returncode not in {0, 1} or not done.stdout.startswith("{"):
        return [f"no verdict: {done.stderr.strip()[-200:]}"]
    found = json.loads(done.stdout)
    broken = [verdict["guarantee"] for verdict in found["verdicts"] if verdict["verdict"] != "held"]
    return broken + [f"level {level}" for level in found["broken_promises"]]


def _run(directory: Path, line: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *line],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def main() -> int:
    """Test each build; return 1 if any is not caught, or if the tests fail without a bug."""
    with tempfile.TemporaryDirectory(prefix="lab-broken-") as name:
        copy(Path(name))
        if failing := failing_tests(Path(name)):
            sys.stdout.write(f"without a bug, {', '.join(failing)} fails\n")
            return 1
    missed = 0
    for build in BUILDS:
        with tempfile.TemporaryDirectory(prefix="lab-broken-") as name:
            make(build, Path(name))
            tests, found = failing_tests(Path(name)), torture(Path(name))
        missed += not tests and not found
        sys.stdout.write(f"a build that {build.name}\n")
        sys.stdout.write(f"  tests:   fail, first {tests[0]}\n" if tests else "  tests:   none fails\n")
        sys.stdout.write(f"  torture: {', '.join(found) or 'clean'}\n")
        sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
