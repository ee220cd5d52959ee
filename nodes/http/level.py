"""The consistency levels by name, the strongest first; the strength of ``quorum`` depends on its numbers."""

from typing import Literal, get_args

Level = Literal["strong", "bounded", "session", "prefix", "quorum", "eventual"]
LEVELS: tuple[Level, ...] = get_args(Level)
QUORUM_MAX = 100  # replicas that one read can ask
