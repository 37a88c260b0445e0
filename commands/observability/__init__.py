"""Model costs and repricing; what is reported of runs is telemetry, which no decider sees."""

from typing import Any

from commands.decider import Decider
from commands.observability import model_cost, repricing

DECIDERS: list[Decider[Any, Any, Any]] = [model_cost.DECIDER, repricing.DECIDER]
