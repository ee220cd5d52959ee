"""The consistency levels by name, the strongest first."""

from typing import Literal

Level = Literal["strong", "bounded", "session", "prefix", "eventual"]
LEVELS: tuple[Level, ...] = ("strong", "bounded", "session", "prefix", "eventual")
