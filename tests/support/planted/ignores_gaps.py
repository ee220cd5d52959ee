"""Applies whatever comes next, also if entries in between were trimmed from the log."""

import lesson


class Replica(lesson.Replica):
    def connects(self, entry: lesson.Entry) -> bool:  # noqa: ARG002
        return True

    def snapshot(self) -> None:
        pass


if __name__ == "__main__":
    lesson.main(replica_type=Replica)
