"""Counts the changes that are delivered, and shows the count as the version: a change delivered twice counts twice."""

import sqlite3
from typing import Any

import lesson


class Store(lesson.Store):
    repeated = 0

    def change(self, db: sqlite3.Connection, entry: lesson.Entry) -> None:
        epoch, version = entry.position
        super().change(db, entry._replace(position=(epoch, version + self.repeated)))


class Replica(lesson.Replica):
    store: Store

    def take(self, found: list[Any]) -> None:
        applied = self.store.position
        self.store.repeated += sum(lesson.position_of(name) <= applied for name, fields in found if fields)
        super().take(found)


if __name__ == "__main__":
    lesson.main(Store, Replica)
