"""The three suites of tests, the tools that each needs, and the tests that run alone because they measure time.

``--suite test`` needs Python only, ``browser`` a Chromium, ``stack`` Docker and the servers around the lab. A test that
needs a tool is marked ``@pytest.mark.needs("chromium")``; the tool decides the suite. At the end one line reports
the tests that were left out, why, and which target runs them.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

SUITES = ("test", "browser", "stack")
_SUITE_OF = {
    "chromium": "browser",
    **dict.fromkeys(
        (
            *("etcd", "mariadbd", "pgbouncer", "postgresql"),
            *("docker", "go", "helm", "index", "jq", "kube-apiserver", "kube-score", "kubeconform"),
            *("minutes", "mount", "netns", "node", "openssl", "prometheus", "redis-server", "runme", "schemathesis"),
        ),
        "stack",
    ),
}
_OPTIONAL = {"kube-apiserver", "runme"}  # takes minutes to build; no package registry has it
_ALONE = "alone"
_LEFT_OUT = pytest.StashKey[Counter[str]]()


def _engine() -> bool:
    return shutil.which("docker") is not None and all(
        subprocess.run(["docker", *command], capture_output=True, check=False).returncode == 0
        for command in (["info"], ["compose", "version"])
    )


def _server(program: str) -> Callable[[], bool]:
    """Whether Debian's package is installed; its directory of servers is not in every user's ``PATH``."""
    return lambda: shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None


def _runs(*command: str) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


_CHECKS: dict[str, Callable[[], bool]] = {
    "chromium": lambda: any(map(shutil.which, ("chromium", "google-chrome"))),
    "docker": _engine,
    "index": lambda: True,
    "kube-apiserver": lambda: all(map(shutil.which, ("kube-apiserver", "etcd", "kubectl"))),
    "mariadbd": _server("mariadbd"),
    "minutes": lambda: True,
    "pgbouncer": _server("pgbouncer"),
    "postgresql": lambda: any(Path("/usr/lib/postgresql").glob("*/bin/initdb")),
    "schemathesis": lambda: find_spec("schemathesis") is not None,
    "mount": lambda: os.geteuid() == 0 and shutil.which("mount") is not None,
    "netns": lambda: _runs("unshare", "--net", "ip", "link"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--suite``."""
    parser.addoption("--suite", choices=[*SUITES, "all"], default="test", help="Suite of tests to run.")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put tests that run alone into a group of that name."""
    if item.get_closest_marker(_ALONE):
        item.add_marker(pytest.mark.xdist_group(_ALONE))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the suite: slow ones first, those that run alone last."""
    wanted = config.getoption("suite")
    needed = {item: [tool for mark in item.iter_markers("needs") for tool in mark.args] for item in items}
    suite = {item: next((_SUITE_OF[tool] for tool in tools), "test") for item, tools in needed.items()}
    left_out = [item for item in items if wanted not in {"all", suite[item]}]
    config.stash[_LEFT_OUT] = Counter(suite[item] for item in left_out)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if wanted in {"all", suite[item]}]
    missing = _missing({tool for item in items for tool in needed[item]})
    if (required := [tool for tool in missing if tool not in _OPTIONAL]) and "CI" in os.environ:
        raise pytest.UsageError(f"with CI set nothing is skipped, but this machine does not have {', '.join(required)}")
    for item in items:
        if lacking := [tool for tool in needed[item] if tool in missing]:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(lacking)}"))
    items.sort(key=_turn)


def _missing(tools: set[str]) -> list[str]:
    return sorted(tool for tool in tools if not _CHECKS.get(tool, lambda tool=tool: bool(shutil.which(tool)))())


def _turn(item: pytest.Item) -> int:
    """Groups first, because a worker runs each as a unit; then tests with processes; those that run alone last."""
    if item.get_closest_marker(_ALONE):
        return 3
    if item.get_closest_marker("xdist_group"):
        return 0
    return 1 if item.get_closest_marker("integration") else 2


# -- reporting tests left out ---------------------------------------------------------------------------------------


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Pass the tests left out by a worker to the reporting process."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = dict(session.config.stash.get(_LEFT_OUT, Counter()))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Take over the tests left out by a worker; all workers collect the same."""
    found = getattr(node, "workeroutput", {}).get("left_out")
    if found is not None:
        node.config.stash[_LEFT_OUT] = Counter(found)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Report in a line the tests that did not run, why, and which target runs them."""
    for line in _not_run(config.stash.get(_LEFT_OUT, Counter()), terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line)


def _not_run(left_out: Counter[str], skipped: list[pytest.TestReport]) -> Iterator[str]:
    parts = [f"{left_out[suite]} of make {target(suite)} ({_NEEDS[suite]})" for suite in SUITES if left_out[suite]]
    if parts:
        yield f"Not run here: {'; '.join(parts)}."
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped if report.longrepr)
    if reasons:
        yield f"Skipped: {'; '.join(f'{count}, {reason}' for reason, count in sorted(reasons.items()))}."


_NEEDS = {
    "test": "Python only",
    "browser": "Chromium",
    "stack": "Docker, Prometheus, servers of databases, Helm, jq, schemathesis, root, a package index, or minutes",
}


def target(suite: str) -> str:
    """Return the make target that runs a suite."""
    return "test" if suite == "test" else f"test-{suite}"


# -- running side by side, and alone -----------------------------------------------------------------------------------


class AloneLast(LoadGroupScheduling):
    """Gives each worker the next test; those that run alone go to one worker when all others have ended.

    A worker that is shut down stops its labs too, so that nothing disturbs a test that measures time.
    """

    def schedule(self) -> None:
        """Keep the order of the collection, which the scheduler would otherwise sort by the size of a group."""
        self.config.option.loadscopereorder = False
        super().schedule()

    def remove_node(self, node: WorkerController) -> str | None:
        """Continue with the tests that run alone when the last of the others has ended."""
        crashed: str | None = super().remove_node(node)
        for remaining in self.nodes[:1]:
            self._reschedule(remaining)
        return crashed

    def _reschedule(self, node: WorkerController) -> None:
        if list(self.workqueue) != [_ALONE]:
            super()._reschedule(node)
            return
        for other in self.nodes[1:]:
            if not other.shutting_down:
                other.shutdown()
        if len(self.nodes) == 1:
            super()._reschedule(self.nodes[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> AloneLast:
    return AloneLast(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return two per core and at least four: the tests mostly wait."""
    return max(4, 2 * (os.cpu_count() or 1))
