"""Errors that the command line reports."""


class LabError(Exception):
    """Raised with a message that states the problem and what to do; ``advice`` follows it on the command line."""

    exit_code = 1
    advice = ""


class NothingTestedError(LabError):
    """Raised when there is nothing to check, which is neither a success nor a violation."""

    exit_code = 2
