"""Policies of agents."""

from typing import Any

from commands.decider import Decider
from commands.observability import policy

DECIDERS: list[Decider[Any, Any, Any]] = [policy.DECIDER]
