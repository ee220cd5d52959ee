"""The command ``lab probe`` in tests: its calibration by a known delay, and failures while it runs."""

import threading
from collections.abc import Callable
from contextlib import closing

from click.testing import CliRunner, Result

from lab.cli import main
from lab.probe.certainty import TIMES_SECONDS, Certainty
from lab.probe.instrument import Limits, Run, run
from lab.probe.target import Target
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
