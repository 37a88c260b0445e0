"""Deciders of the platform."""

from typing import Any

from commands.decider import Decider
from commands.platform.audit_export import DECIDER as AUDIT_EXPORT

DECIDERS: list[Decider[Any, Any, Any]] = [AUDIT_EXPORT]
