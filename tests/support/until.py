"""Wait for a condition, with a bound."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(
    condition: Callable[[], Found], timeout_seconds: float = 10.0, state: Callable[[], object] | None = None
) -> Found:
    """Return the first truthy result of ``condition``; fail the test if there is no such result in time.

    ``state`` is what the failure shows instead of the last result.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds} s; last seen: {state() if state else found!r}")
        time.sleep(0.01)
    return found
