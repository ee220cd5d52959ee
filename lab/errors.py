"""What can go wrong for a person at the command line."""


class LabError(Exception):
    """Raised with one sentence that says what is wrong and what to do."""
