"""The levels: what each one demands, and the trials that test it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lab.client import post
from lab.grade.trial import HALVES, KEYS, Trial
from lab.local import log_status, state

_DELAY_MS = 100
_LONG_MS = 1500  # so that entries wait while something happens
_BURST = 40
_FEW = 12
_MANY = 1200  # more than a page of pending entries
_PER_SECOND = 300
_REACHED_SECONDS = 5.0
_HANG_SECONDS = 1.2  # after 2 s the Sentinels replace it


@dataclass(frozen=True)
class Scene:
    """What is done in one trial, which starts with an empty store and this delay."""

    act: Callable[[Trial], None]
    delay_ms: float = _DELAY_MS


@dataclass(frozen=True)
class Level:
    """``sentence``: what a replica of this level does. ``hint``: the page that explains it."""

    number: int
    name: str
    sentence: str
    scenes: tuple[Scene, ...]

    @property
    def hint(self) -> str:
        return f"docs/bring-your-own.md#level-{self.number}"


def _serve(trial: Trial) -> None:
    for _ in range(_FEW):
        trial.load.write_some(1)
        if not trial.settle():
            return
    trial.load.delete_one()


def _order(trial: Trial) -> None:
    with trial.load.running(_PER_SECOND):
        trial.wait(6)


def _durable(trial: Trial) -> None:
    for _ in range(6):
        hold = trial.tap.hold_at(trial.random.randint(1, _BURST))
        trial.load.write_some(_BURST)
        trial.until(hold.reached.is_set, _REACHED_SECONDS)
        trial.die(hold.release)
    trial.load.write(KEYS)


def _redelivered(trial: Trial) -> None:
    for _ in range(6):
        cut = trial.tap.cut_at(trial.random.randint(1, _BURST))
        trial.load.write_some(_BURST)
        trial.until(cut.reached.is_set, _REACHED_SECONDS)
        cut.release()
        trial.wait(0.3)
    with trial.load.running(_PER_SECOND):
        for keys in HALVES * 4:
            trial.wait(trial.random.uniform(0.2, 0.7))
            # Nothing that is written meanwhile hides that a pending entry is not applied.
            trial.die(partial(trial.load.choose, keys))


def _many_pending(trial: Trial) -> None:
    trial.load.write_some(_MANY)
    trial.wait(0.5)
    trial.die()


def _delays(trial: Trial) -> None:
    with trial.load.running(100):
        trial.wait(2)
        for delay_ms in (100, 700, 250):
            trial.set_delay(delay_ms)
            trial.wait(4)
    trial.compare_with_peer()


def _resets(trial: Trial) -> None:
    with trial.load.running(100):
        for _ in range(2):
            trial.wait(trial.random.uniform(1, 1.5))
            _reset(trial)
        trial.wait(1)
        trial.die(lambda: _reset(trial))
        trial.wait(1)


def _reset(trial: Trial) -> None:
    trial.mark("grader", "reset")
    post(f"{trial.around.lab.primary_url}/admin/reset", {})


def _gap_while_dead(trial: Trial) -> None:
    trial.load.write_some(_BURST)
    trial.settle()
    trial.die(partial(_lose, trial))
    _go_on(trial)


def _gap_while_pending(trial: Trial) -> None:
    trial.load.write_some(_BURST)
    trial.wait(0.3)
    trial.die(trial.trim)
    _go_on(trial)


def _gap_while_asleep(trial: Trial) -> None:
    trial.load.write_some(_BURST)
    trial.settle()
    with trial.asleep():
        _lose(trial)
    _go_on(trial)


def _gap_at_the_end(trial: Trial) -> None:
    trial.load.write_some(_BURST)
    trial.settle()
    trial.die(partial(_lose, trial))


def _lose(trial: Trial) -> None:
    trial.load.write(HALVES[0])
    trial.trim()


def _go_on(trial: Trial) -> None:
    """Write other keys, so that those of the missing entries stay wrong."""
    trial.load.choose(HALVES[1])
    trial.load.write_some(_BURST)


def _log_server(trial: Trial) -> None:
    target = trial.around.target
    with trial.load.running(100):
        trial.wait(1)
        resume = target.stop(_master(trial))
        trial.mark("log", "hangs")
        trial.wait(_HANG_SECONDS)
        resume()
        trial.mark("log", "goes on")
        trial.wait(1)
        trial.tap.silence()
        trial.mark("log", "connections go silent")
        trial.wait(4)
        post(f"{target.client_url}/faults", {"replica": "log", "fault": "failover"})
        trial.mark("log", "fails over")
        trial.wait(4)
        target.kill(_master(trial))
        trial.mark("log", "killed")
        trial.wait(5)


def _master(trial: Trial) -> str:
    lab = trial.around.lab
    return str(log_status.name_of(log_status.master(lab.redis_url), state.require(lab.data_dir)))


LEVELS = (
    Level(1, "serves", "It reads its group, and serves what it has applied.", (Scene(_serve),)),
    Level(2, "order", "Under load it applies every entry, in log order.", (Scene(_order),)),
    Level(3, "durable", "It acknowledges only what survives kill -9.", (Scene(_durable),)),
    Level(
        4,
        "redelivery",
        "It applies each entry once, and first those that are pending.",
        (Scene(_redelivered), Scene(_many_pending, _LONG_MS)),
    ),
    Level(5, "delay", "It applies an entry neither before it is due nor late.", (Scene(_delays, 400),)),
    Level(6, "resets", "After a reset it shows nothing of an earlier epoch.", (Scene(_resets, 400),)),
    Level(
        7,
        "gaps",
        "It notices that entries are missing from the log.",
        (Scene(_gap_while_dead), Scene(_gap_while_pending, _LONG_MS), Scene(_gap_while_asleep), Scene(_gap_at_the_end)),
    ),
    Level(
        8,
        "log server",
        "It goes on after the log server hangs, restarts or fails over.",
        (Scene(_log_server, _LONG_MS),),
    ),
)
