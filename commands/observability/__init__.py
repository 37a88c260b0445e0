"""Model costs, repricing, policies and erasures. Reports of runs are telemetry, with no decider."""

from typing import Any

from commands.decider import Decider
from commands.observability import erasure, model_cost, policy, repricing

DECIDERS: list[Decider[Any, Any, Any]] = [
    model_cost.DECIDER,
    repricing.DECIDER,
    policy.DECIDER,
    erasure.DECIDER,
]
