"""Model costs; runs and what is reported of them are telemetry, which no decider sees."""

from typing import Any

from commands.decider import Decider
from commands.observability import model_cost

DECIDERS: list[Decider[Any, Any, Any]] = [model_cost.DECIDER]
