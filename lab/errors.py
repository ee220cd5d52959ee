"""Errors that the command line reports."""


class LabError(Exception):
    """Raised with one sentence that says what is wrong and what to do; ``advice`` follows it on the command line."""

    exit_code = 1
    advice = ""


class NothingTestedError(LabError):
    """Raised when a check has nothing to judge, which is neither a success nor a violation."""

    exit_code = 2
