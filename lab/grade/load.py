"""The load of a level: batches of writes, and now and then a delete, at a steady rate."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from urllib.parse import quote

from lab.client import NodeUnreachable, call

_BATCH = 10
_DELETES_APART = 20  # batches


class Load:
    """Failures are ignored: what counts is what is in the log. Not thread-safe."""

    def __init__(self, primary_url: str, keys: Sequence[str], random: Random) -> None:
        self._url = primary_url
        self._chosen = keys
        self._random = random
        self._written = 0

    def write(self, keys: Sequence[str]) -> None:
        """Write these keys, in this order, in one request."""
        with suppress(NodeUnreachable):
            items = [{"key": key, "value": f"v{self._written + n}"} for n, key in enumerate(keys, 1)]
            self._written += len(items)
            call("POST", f"{self._url}/data/batch", items)

    def write_some(self, count: int) -> None:
        self.write(self._random.choices(self._chosen, k=count))

    def delete_one(self) -> None:
        with suppress(NodeUnreachable):
            call("DELETE", f"{self._url}/data/{quote(self._random.choice(self._chosen), safe='')}")

    def choose(self, keys: Sequence[str]) -> None:
        """Write only these keys from now on."""
        self._chosen = keys

    @contextmanager
    def running(self, per_second: float) -> Iterator[None]:
        """Write at this rate in a thread."""
        stop = threading.Event()

        def run() -> None:
            due, batches = time.monotonic(), 0
            while not stop.wait(max(0.0, due - time.monotonic())):
                due = max(due + _BATCH / per_second, time.monotonic() - 1)  # do not catch up on a long hang
                batches += 1
                self.write_some(_BATCH)
                if batches % _DELETES_APART == 0:
                    self.delete_one()

        thread = threading.Thread(target=run, name="load", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
