"""Model costs, repricing and policies; what is reported of runs is telemetry, without a decider."""

from typing import Any

from commands.decider import Decider
from commands.observability import model_cost, policy, repricing

DECIDERS: list[Decider[Any, Any, Any]] = [model_cost.DECIDER, repricing.DECIDER, policy.DECIDER]
