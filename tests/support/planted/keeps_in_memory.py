"""Starts with an empty store each time, as one that is kept in memory, and goes on with what is delivered next."""

from pathlib import Path

import lesson


class Store(lesson.Store):
    def __init__(self, directory: Path) -> None:
        for file in directory.glob("store.sqlite*"):
            file.unlink()
        super().__init__(directory)


class Replica(lesson.Replica):
    def connects(self, entry: lesson.Entry) -> bool:  # noqa: ARG002
        return True

    def snapshot(self) -> None:
        pass


if __name__ == "__main__":
    lesson.main(Store, Replica)
