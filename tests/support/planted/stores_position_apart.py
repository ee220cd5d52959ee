"""Stores the position in one transaction and the data in a second one. Readers wait for both, a kill does not."""

import threading
import time
from pathlib import Path

import lesson

_BETWEEN_SECONDS = 0.02  # a slow disk


class Store(lesson.Store):
    def __init__(self, directory: Path) -> None:
        self.lock = threading.RLock()
        super().__init__(directory)

    def apply(self, entries: list[lesson.Entry]) -> None:
        with self.lock:
            with self.db() as db:
                self.move(db, entries[-1].position)
            time.sleep(_BETWEEN_SECONDS)
            with self.db() as db:
                db.execute("BEGIN")
                for entry in entries:
                    self.change(db, entry)

    def read(self) -> lesson.Position:
        with self.lock:
            return super().read()

    def get(self, key: str) -> tuple[lesson.Position, str | None, int]:
        with self.lock:
            return super().get(key)


if __name__ == "__main__":
    lesson.main(Store)
