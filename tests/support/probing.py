"""What every target of ``lab probe`` does, its calibration by a known delay, and failures while the command runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest
from click.testing import CliRunner, Result

from lab.cli import main
from lab.probe.certainty import TIMES_SECONDS, Certainty
from lab.probe.instrument import Limits, Run, run
from lab.probe.target import NotNow, Shown, Target, TargetError
from tests.support.until import until

_CHANGES = 4  # the first ones come before the first write, and before the first read
LIMITS = Limits(writes_per_second=50.0, seconds=1.0)


def command(*arguments: str, password: str | None = None) -> Result:
    return CliRunner().invoke(main, ["probe", *arguments], env={"LAB_PROBE_PASSWORD": password})


def interrupted(act: Callable[[], object], numbers: Callable[[], object], *arguments: str) -> Result:
    """Run the command, and do something to its servers when several writes have changed the numbers on the primary."""
    failures: list[BaseException] = []
    seen: set[object] = set()

    def has_written() -> bool:
        seen.add(numbers())
        return len(seen) > _CHANGES

    def wait_and_act() -> None:
        try:
            until(has_written)
            act()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    try:
        found = command(*arguments, "--give-up", "1")
    finally:
        thread.join(20)
    for failure in failures:
        raise failure
    return found


def require_calibrated(
    primary: Target, slow: Target, fast: Target, delay_seconds: float, limits: Limits = LIMITS
) -> Run:
    """Measure two replicas, of which one shows each write at least ``delay_seconds`` after its sending."""
    with closing(primary), closing(slow), closing(fast):
        found = run(primary, [slow, fast], limits)
    assert (found.ended, found.not_removed, found.errors) == ("", "", 0)
    for replica, delay in zip(found.replicas, (delay_seconds, 0.0), strict=True):
        assert len(replica.brackets) == limits.writes
        assert all(one.high is not None and one.high >= one.sent + delay for one in replica.brackets)
        least = [one.sent + delay - one.acked for one in replica.brackets]
        for at, bounds in zip(TIMES_SECONDS, Certainty([one.window for one in replica.brackets]).curve(), strict=True):
            truth = sum(window > at for window in least) / limits.writes
            assert truth <= (bounds.at_most or 0) <= (bounds.high or 0), at
    return found


def shows(target: Target, key: str, number: int) -> bool:
    with suppress(NotNow):
        return target.read([key]).numbers == {key: number}
    return False


def require_numbers(primary: Target, *replicas: Target) -> None:
    """Every node shows the highest number of each key that was written, and nothing is left on the primary."""
    assert primary.read(["a", "b"]) == Shown({}, is_replica=False)
    primary.write("a", 1)
    primary.write("b", 3)
    primary.write("b", 2)
    assert primary.read(["a", "b", "c"]) == Shown({"a": 1, "b": 3}, is_replica=False)
    assert primary.read(["a"]).numbers == {"a": 1}
    for replica in replicas:
        until(lambda replica=replica: shows(replica, "b", 3))
        assert replica.read(["a", "b"]) == Shown({"a": 1, "b": 3}, is_replica=True)
    primary.remove()
    primary.remove()


def require_one_probe(first: Target, second: Target) -> None:
    """Of two probes on one primary, the second is refused, but can remove what the first has created."""
    first.write("k", 7)
    with pytest.raises(TargetError, match=r"another probe is running, or one could not remove it.*--remove"):
        second.prepare()
    assert first.read(["k"]).numbers == {"k": 7}
    second.remove()
    with pytest.raises(TargetError, match=r"lab_probe\.numbers does not exist; it was removed during the run"):
        first.write("k", 8)
    second.prepare()


def require_sentence(target: Target, reason: str, begin: str = "") -> None:
    """No connection: every method says why in one line, without the password ``wrong-password``.

    ``begin``: a pattern before the reason, which the error of a read lacks.
    """
    for attempt in (target.settings, target.prepare, target.describe, target.remove):
        with pytest.raises(TargetError, match=begin + reason) as raised:
            attempt()
        assert "\n" not in str(raised.value)
        assert "wrong-password" not in str(raised.value)
    with pytest.raises(NotNow, match=reason):
        target.read(["k"])


@contextmanager
def failing(read: Callable[[], object]) -> Iterator[list[str]]:
    """Read in another thread; the read must have failed with ``NotNow`` when the block and the read have ended."""
    failures: list[str] = []

    def attempt() -> None:
        try:
            read()
        except NotNow as error:
            failures.append(str(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    try:
        yield failures
    finally:
        thread.join(20)
    assert failures
