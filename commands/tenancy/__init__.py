"""Tenants and trials. See README.md."""

from typing import Any

from commands.decider import Decider
from commands.tenancy import tenant, trial, trial_origin

DECIDERS: list[Decider[Any, Any, Any]] = [tenant.DECIDER, trial.DECIDER, trial_origin.DECIDER]
