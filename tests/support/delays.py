"""One delay model of each kind."""

from broker.delay.compound import Mixture, Trace
from broker.delay.models import DelayModel, Exponential, Fixed, Lognormal, Pareto, Uniform

MODELS: list[DelayModel] = [
    Fixed(500),
    Uniform(100, 900),
    Exponential(500),
    Lognormal(300, 0.8),
    Pareto(50, 2.5),
    Mixture(((0.9, Pareto(50, 2.5)), (0.1, Exponential(1000)))),
    Trace((1, 20, 40, 80, 160, 1000)),
]
CONTINUOUS = [model for model in MODELS if not model.is_constant]
