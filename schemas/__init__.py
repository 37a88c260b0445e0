"""The contract: events, envelope, topics, Avro. Imports nothing of ours."""

from msgspec import Struct

from schemas.approvals import EVENTS as APPROVALS_EVENTS
from schemas.billing import EVENTS as BILLING_EVENTS
from schemas.fhe import EVENTS as FHE_EVENTS
from schemas.identity import EVENTS as IDENTITY_EVENTS
from schemas.observability import EVENTS as OBSERVABILITY_EVENTS
from schemas.platform import EVENTS as PLATFORM_EVENTS
from schemas.prompts import EVENTS as PROMPTS_EVENTS
from schemas.tenancy import EVENTS as TENANCY_EVENTS

EVENTS: list[type[Struct]] = [
    *FHE_EVENTS,
    *APPROVALS_EVENTS,
    *BILLING_EVENTS,
    *IDENTITY_EVENTS,
    *OBSERVABILITY_EVENTS,
    *PLATFORM_EVENTS,
    *PROMPTS_EVENTS,
    *TENANCY_EVENTS,
]
"""Every event struct; `schemas/<domain>/__init__.py` lists a domain's in its own EVENTS."""
