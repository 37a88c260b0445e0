"""Tenants. See README.md."""

from typing import Any

from commands.decider import Decider
from commands.tenancy import tenant

DECIDERS: list[Decider[Any, Any, Any]] = [tenant.DECIDER]
