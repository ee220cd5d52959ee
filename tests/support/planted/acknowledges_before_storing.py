"""Acknowledges an entry, then stores it. Killed in between, it has lost the entry: it is not delivered again."""

import lesson


class Replica(lesson.Replica):
    def settle(self, due: list[lesson.Entry]) -> None:
        self.redis.xack(self.log, self.name, *[entry.name for entry in due])
        self.store.apply(due)


if __name__ == "__main__":
    lesson.main(replica_type=Replica)
