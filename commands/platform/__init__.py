"""Deciders of the platform."""

from typing import Any

from commands.decider import Decider
from commands.platform.audit_export import DECIDER as AUDIT_EXPORT
from commands.platform.webhook_endpoint import DECIDER as WEBHOOK_ENDPOINT
from commands.platform.webhook_subscription import DECIDER as WEBHOOK_SUBSCRIPTION

DECIDERS: list[Decider[Any, Any, Any]] = [AUDIT_EXPORT, WEBHOOK_ENDPOINT, WEBHOOK_SUBSCRIPTION]
