"""Run the worker: ``python -m lab.experiments``, configured by the environment as the nodes are."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, cast

from nodes.config import ConfigError, WorkerConfig, load
from nodes.serving import Service

if TYPE_CHECKING:
    from flask import Flask


def main() -> int:
    """Serve until told to stop."""
    try:
        config = cast("WorkerConfig", load("worker", os.environ))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1

    def create(config: WorkerConfig) -> Flask:
        from lab.experiments.app import create_app  # in the worker process only

        return create_app(config)

    Service(config, create).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
