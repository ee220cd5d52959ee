"""Run one node: ``python -m nodes primary|replica|client|worker``, configured by the environment."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from nodes.runtime.config import ROLES, ConfigError, load
from nodes.runtime.serving import Service


def main() -> int:
    """Load the configuration of the role named on the command line and serve until stopped."""
    if len(sys.argv) != 2 or sys.argv[1] not in ROLES:
        sys.stderr.write(f"usage: python -m nodes {'|'.join(ROLES)}\n")
        return 2
    role: Any = sys.argv[1]
    try:
        config = load(role, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    Service(config, lambda config: import_module(f"nodes.{role}.app").create_app(config)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
