"""Applies entries at half of the delay."""

import lesson


class Replica(lesson.Replica):
    def due_us(self, entry: lesson.Entry) -> float:
        return super().due_us(entry) - self.delay_us / 2


if __name__ == "__main__":
    lesson.main(replica_type=Replica)
