"""What ``lab check`` and ``lab probe --sessions`` do with a recorded history."""

from pathlib import Path

import click
from rich.console import Console

from lab.checking import promises, report
from lab.checking.history import History, save
from lab.errors import NothingTestedError
from lab.terminal import print_json

expect_option = click.option(
    "--expect",
    "expected",
    type=click.Choice(list(promises.CHECKERS)),
    multiple=True,
    help="Guarantee that must hold; repeatable.",
)


def conclude(history: History, out: Console, save_to: Path | None, *, as_json: bool) -> int:
    """Save the history and print its verdicts. Return the exit status: 1 if what was promised or expected did not hold.

    Raises ``NothingTestedError`` if nothing was tested, or not everything that was expected.
    """
    if save_to is not None:
        save(history, save_to)
    verdicts = promises.judge(history)
    if as_json:
        print_json(report.as_json(history, verdicts))
    out.print(report.picture(history, verdicts))
    if all(found.judgement == "not tested" for found in verdicts):
        raise NothingTestedError("nothing was tested: no operation relevant to a guarantee succeeded")
    if promises.broken(history.plan, verdicts):
        return 1
    if untested := promises.untested(history.plan, verdicts):
        raise NothingTestedError(f"expected, but not tested: {', '.join(untested)}")
    return 0
