"""Runs a program through the levels, on a lab of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.grade.levels import Level, Scene
from lab.grade.program import Program
from lab.grade.record import Record
from lab.grade.surroundings import Surroundings
from lab.grade.trial import Trial
from lab.local.supervisor import Lab, Status

_REPLICAS = 2  # built-in ones beside the program


@contextmanager
def surroundings(status: Status) -> Iterator[Surroundings]:
    """Start a lab to grade programs in. Raises ``LabError``."""
    with Lab.temporary(ha=True, replicas=_REPLICAS, status=status) as lab, Surroundings(lab).kept() as around:
        yield around


def play(around: Surroundings, command: Sequence[str], level: Level, seed: int) -> Iterator[Record]:
    """Yield the records of the level's scenes. Raises ``LabError``, ``Misbehaved`` for what no consumer does.

    Every scene starts with an empty store, so a level gives the same alone as after the others.
    """
    directory = around.lab.data_dir / "graded"
    program = Program(command, around.environment(directory), around.log_file)

    def record(number: int, scene: Scene) -> Record:
        trial = Trial(around, program, directory, level.number, f"{seed}-{level.number}-{number}")
        with trial.begun(scene.delay_ms):
            scene.act(trial)
            return trial.record()

    yield from (record(number, scene) for number, scene in enumerate(level.scenes))
