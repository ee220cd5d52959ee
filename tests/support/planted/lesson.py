"""The parts of the replica that is right, to be changed by the programs beside this module, which run as scripts."""

import sqlite3
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "replicas"))
from correct import Entry, Position, Replica, Store, main, position_of

__all__ = ["Entry", "NewestWins", "Position", "Replica", "Store", "main", "position_of"]


class NewestWins(Store):
    """Takes changes in any order; the end is right. A deleted key is kept without a value, to compare versions."""

    def change(self, db: sqlite3.Connection, entry: Entry) -> None:
        if entry.op == "epoch":
            if entry.position > self.position:
                super().change(db, entry)
            return
        upsert = """INSERT INTO data VALUES (?, ?, ?) ON CONFLICT DO UPDATE
                    SET value = excluded.value, version = excluded.version WHERE excluded.version > data.version"""
        db.execute(upsert, (entry.key, entry.value if entry.op == "set" else None, entry.position[1]))

    def move(self, db: sqlite3.Connection, position: Position) -> None:
        super().move(db, max(position, self.read()))
