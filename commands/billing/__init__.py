"""Usage and budgets."""

from typing import Any

from commands.billing import budget, budget_window, usage
from commands.decider import Decider

DECIDERS: list[Decider[Any, Any, Any]] = [usage.DECIDER, budget.DECIDER, budget_window.DECIDER]
