"""Hooks that modify generated requests that would make a node wait for minutes or crash; they stay valid."""

from typing import Any

import schemathesis

WAIT_MS = 100
_MOMENTARY = {"corrupt", "crash"}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Shorten waits and faults, and replace a crash by a pause."""
    wait = str((case.query or {}).get("timeout_ms", ""))
    if wait.isdecimal() and WAIT_MS < int(wait) <= 600_000:
        case.query["timeout_ms"] = WAIT_MS
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("fault"), str):
        if body["fault"] == "crash":
            body["fault"] = "pause"
        if body["fault"] not in _MOMENTARY and body.get("duration_ms") is None and "duration_ms" in body:
            body["duration_ms"] = WAIT_MS
