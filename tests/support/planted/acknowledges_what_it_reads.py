"""Acknowledges everything that it has read, also what waits in memory until it is due."""

from typing import Any

import lesson


class Replica(lesson.Replica):
    def take(self, found: list[Any]) -> None:
        if found:
            self.redis.xack(self.log, self.name, *[name for name, _ in found])
        super().take(found)


if __name__ == "__main__":
    lesson.main(replica_type=Replica)
