"""Writers that record the acknowledged writes."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import urllib3

from tests.support.http import ask


class Writers:
    """``count`` writers, together ``rate`` writes per second, over ``keys`` keys: ``with Writers(…) as load:``.

    Each write has an Idempotency-Key and is repeated until its outcome is definite, as a careful client would do.
    """

    def __init__(self, primary_url: str, *, count: int, rate: float, keys: int, query: str = "") -> None:
        self._url = f"{primary_url}/data{query}"
        self._count = count
        self._pause = count / rate
        self._keys = keys
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        self.acknowledged: list[dict[str, Any]] = []
        self.times: list[float] = []  # of the acknowledgements
        self.took_ms: list[float] = []
        self.refused: list[tuple[float, str]] = []  # when, and the outcome
        self.gave_up: list[str] = []

    def __enter__(self) -> Writers:
        """Start."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop when every write has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, writer: int) -> None:
        next_at = time.monotonic() + self._pause * writer / self._count
        number = 0
        while not self._stop.wait(max(0.0, next_at - time.monotonic())):
            self._write(f"key-{(number * self._count + writer) % self._keys}", f"{writer}-{number}")
            number += 1
            next_at += self._pause

    def _write(self, key: str, value: str) -> None:
        write_id = uuid.uuid4().hex
        deadline = time.monotonic() + 60
        while (sent_at := time.monotonic()) < deadline:
            try:
                status, answer = ask("POST", self._url, {"key": key, "value": value}, Idempotency_Key=write_id)
            except (urllib3.exceptions.HTTPError, ValueError):
                time.sleep(0.05)
                continue
            if status == 200:
                self.acknowledged.append(answer)
                self.times.append(time.monotonic())
                self.took_ms.append((time.monotonic() - sent_at) * 1000)
                return
            assert status == 503, answer
            self.refused.append((time.monotonic(), answer["outcome"]))
            time.sleep(0.05)
        self.gave_up.append(write_id)
