"""Applies entries in parallel: each is right, and the newest change of a key wins, but they overtake each other."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import lesson

_WORK_SECONDS = 0.03  # at most, for one entry


class Replica(lesson.Replica):
    pool = ThreadPoolExecutor(8)

    def settle(self, due: list[lesson.Entry]) -> None:
        resets = [entry for entry in due if entry.op == "epoch"]
        if resets:
            self.store.apply(resets)
        list(self.pool.map(self.work, [entry for entry in due if entry.op != "epoch"]))
        self.done += [entry.name for entry in due]

    def work(self, entry: lesson.Entry) -> None:
        time.sleep(random.uniform(0, _WORK_SECONDS))
        self.store.apply([entry])


if __name__ == "__main__":
    lesson.main(lesson.NewestWins, Replica)
