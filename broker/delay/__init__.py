"""Delays of replicas: models, the delay line, and predictions."""

from broker.delay import compound  # noqa: F401 - defining a model registers it
