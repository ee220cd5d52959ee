"""After a start it reads new entries until there are none, and only then those that are pending for it.

In the end it is right, because the newest change of a key wins; until then, its position claims what it has not read.
"""

from typing import Any

import lesson


class Replica(lesson.Replica):
    looks_back = False

    def start(self) -> None:
        super().start()
        self.cursor, self.looks_back = ">", True

    def exchange(self) -> tuple[list[Any], lesson.Position]:
        found, head = super().exchange()
        if self.looks_back and not found and not self.waiting:
            self.cursor, self.looks_back = "0", False
        return found, head

    def take(self, found: list[Any]) -> None:
        for name, fields in found:
            if not fields or "op" not in fields:
                self.done.append(name)
                continue
            position = lesson.position_of(name)
            entry = lesson.Entry(name, position, fields["op"], fields["key"], fields["value"], int(fields["at"]))
            self.waiting.append(entry)
            self.last = max(self.last, position)


if __name__ == "__main__":
    lesson.main(lesson.NewestWins, Replica)
