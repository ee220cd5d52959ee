"""Replicas that are each wrong in one way: a program's name, the first level that it must fail, and what that says."""

_LOST = "after the restart"

FAILS_FIRST = {
    "applies_in_parallel": (2, "is not applied, although"),
    "acknowledges_before_storing": (3, _LOST),
    "acknowledges_what_it_reads": (3, _LOST),
    "keeps_in_memory": (3, _LOST),
    "counts_twice": (4, "was applied twice, and counted twice"),
    "reads_new_first": (4, "it was pending when the program was killed"),
    "stores_position_apart": (4, "is not applied, although"),
    "applies_early": (5, "it was shown"),
    "ignores_epochs": (6, "of an epoch that a reset ended"),
    "ignores_gaps": (7, "the log was trimmed"),
}
