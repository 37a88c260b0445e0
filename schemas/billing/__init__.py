"""Usage and budgets."""

from msgspec import Struct

from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.billing.usage import UsageRecorded

EVENTS: list[type[Struct]] = [UsageRecorded, BudgetSet, BudgetRemoved, BudgetReached]
