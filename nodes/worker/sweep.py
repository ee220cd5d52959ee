"""An experiment again and again, with another value of one of its parameters each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodes.experiments.spec import Spec, Sweep
from nodes.worker.run import Result, Run


def measure(spec: Sweep, run: Run, once: Callable[[Spec, Run], Result]) -> Result:
    """Run every step. ``once`` runs one experiment with its settings. Raises ``TargetError`` or ``Stopped``."""
    steps: list[dict[str, Any]] = []
    for number, (value, step) in enumerate(zip(spec.values, spec.steps, strict=True)):
        run.part(number, len(spec.values))
        run.say(0.0, {"parameter": spec.parameter, "steps": steps})
        steps.append({"value": value, "result": once(step, run)})
    return {"parameter": spec.parameter, "steps": steps}
