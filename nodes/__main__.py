"""Run one node: ``python -m nodes primary|replica|client|worker``, configured by the environment."""

import os
import sys
from typing import Any

from nodes.runtime.config import (
    ROLES,
    ClientConfig,
    ConfigError,
    NodeConfig,
    PrimaryConfig,
    ReplicaConfig,
    WorkerConfig,
    load,
)
from nodes.runtime.serving import Service


def create_app(config: NodeConfig) -> Any:
    """Import and return the app of a role; only the worker process needs it, not its master."""
    if isinstance(config, PrimaryConfig):
        from nodes.primary import app as primary

        return primary.create_app(config)
    if isinstance(config, ReplicaConfig):
        from nodes.replica import app as replica

        return replica.create_app(config)
    if isinstance(config, ClientConfig):
        from nodes.client import app as client

        return client.create_app(config)
    if isinstance(config, WorkerConfig):
        from nodes.worker import app as worker

        return worker.create_app(config)
    raise TypeError(f"no role has the configuration {config!r}")


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
    Service(config, create_app).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
