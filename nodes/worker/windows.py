"""The time until every replica has a write."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broker.delay.prediction import predict
from broker.stats import spread
from nodes.experiments.spec import Windows
from nodes.http.peers import Ask
from nodes.worker.run import Result, Run, failures, rmse, rounded

_POINTS = 61  # of the curve, from 0 to a fifth beyond the longest window
_BEYOND = 1.2
_WRITE_MS = 6000  # for the write itself, before the wait for the replicas


@dataclass
class Measured:
    """Written by many threads, each with a single atomic call."""

    window_ms: list[float | None] = field(default_factory=list)
    applied_ms: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def add(self, found: dict[str, Any]) -> None:
        self.window_ms.append(found["consistency_time_ms"])
        for replica, wait in found["replicas"].items():
            if (applied_ms := wait.get("applied_after_ms")) is not None:  # None: it has restarted since
                self.applied_ms.setdefault(replica, []).append(applied_ms)

    def converged_ms(self) -> list[float]:
        return [window for window in list(self.window_ms) if window is not None]

    def figures(self) -> Result:
        converged = self.converged_ms()
        return {
            "window_ms": spread(converged),
            "timeouts": len(self.window_ms) - len(converged),
            **failures(self.errors),
            "applied_after_ms": {replica: spread(values) for replica, values in sorted(self.applied_ms.items())},
        }


def measure(spec: Windows, run: Run) -> Result:
    """Write at random times, and measure each window through the client. Raises ``TargetError`` or ``Stopped``."""
    replicated = run.target.replicated(spec.rate)
    measured = Measured()
    url = f"{run.target.client_url}/write-and-wait?timeout_ms={spec.timeout_ms}"

    def write(number: int) -> None:
        body = {"key": f"experiment-{number % 1000}", "value": number}
        reply = run.ask(Ask(url, "POST", body=body, wait_ms=spec.timeout_ms + _WRITE_MS), measured.errors)
        if reply is not None:
            measured.add(reply.body)

    late_ms = run.at_moments(
        (spec.seed, spec.writes, spec.rate), write, lambda: (len(measured.window_ms) / spec.writes, measured.figures())
    )
    converged = np.sort(measured.converged_ms())
    t_ms = np.linspace(0, _BEYOND * max([1.0, *converged]), _POINTS)
    share = np.searchsorted(converged, t_ms, side="right") / max(1, len(measured.window_ms))
    predicted = predict(list(replicated.values()), t_ms.tolist()).converged
    return {
        **measured.figures(),
        "late_ms": spread(late_ms),
        "converged": {
            "t_ms": rounded(t_ms, 3),
            "measured": rounded(share),
            "predicted": rounded(predicted),
            "rmse": rmse(share, predicted),
        },
        "raw": {"window_ms": measured.window_ms, "applied_after_ms": measured.applied_ms},
    }
