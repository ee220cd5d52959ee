"""What can go wrong for a person at the command line."""


class LabError(Exception):
    """Raised with one sentence that says what is wrong and what to do."""

    exit_code = 1


class NothingTestedError(LabError):
    """Raised when a check has nothing to judge, which is neither a success nor a violation."""

    exit_code = 2
