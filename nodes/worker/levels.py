"""The cost of each consistency level for readers."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from broker.stats import spread
from nodes.experiments.spec import Levels
from nodes.http.level import Level
from nodes.http.peers import Ask, Reply
from nodes.worker.run import Result, Run


@dataclass
class Cost:
    waited_ms: list[float] = field(default_factory=list)
    stale: int = 0
    own_write: int = 0
    refused: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, version: int, status: int, body: dict[str, Any]) -> None:
        if "waited_ms" not in body:
            self.refused.append(f"{status}: {body.get('detail')}")
            return
        self.waited_ms.append(body["waited_ms"])
        self.stale += bool(body["stale"])
        self.own_write += body["version"] >= version

    def figures(self) -> Result:
        """The summary. ``stale`` and ``own_write``: the share of the answered reads."""
        answered = max(1, len(self.waited_ms))
        return {
            "waited_ms": spread(list(self.waited_ms)),
            "stale": round(self.stale / answered, 5),
            "own_write": round(self.own_write / answered, 5),
            "refused": len(self.refused),
            "errors": len(self.errors),
            "error": next(iter([*self.errors[-1:], *self.refused[-1:]]), None),
        }


def measure(spec: Levels, run: Run) -> Result:
    """For each level in turn, write and immediately read, at random times. Raises ``Stopped``."""
    costs = {level: Cost() for level in spec.levels}
    total = spec.reads * len(spec.levels)

    def progress() -> tuple[float, Result]:
        done = sum(len(cost.waited_ms) + len(cost.refused) + len(cost.errors) for cost in costs.values())
        return done / total, {"levels": {level: cost.figures() for level, cost in costs.items()}}

    late_ms: list[float] = []
    for level, cost in costs.items():
        late_ms += run.at_moments((spec.seed, spec.reads, spec.rate), partial(_once, spec, run, level, cost), progress)
    return {
        **progress()[1],
        "late_ms": spread(late_ms),
        "raw": {"waited_ms": {level: cost.waited_ms for level, cost in costs.items()}},
    }


def _once(spec: Levels, run: Run, level: Level, cost: Cost, number: int) -> None:
    url, key = run.target.client_url, f"experiment-{level}-{number % 1000}"
    given = {"bounded": f"&max_lag_ms={spec.max_lag_ms:g}", "quorum": f"&r={spec.r}"}.get(level, "")
    read = f"{url}/read/{key}?level={level}&timeout_ms={spec.timeout_ms}{given}"
    write = Ask(f"{url}/write", "POST", body={"key": key, "value": number}, wait_ms=6000)
    if (written := run.ask(write, cost.errors)) is None:
        return
    headers = {"Lab-Position": written.body["token"]}
    found = run.target.peers.attempt(Ask(read, headers=headers, wait_ms=spec.timeout_ms + 2000))
    if isinstance(found, Reply):
        cost.add(written.body["version"], found.status, found.body)
    else:
        cost.errors.append(str(found))
