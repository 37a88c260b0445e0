"""The contract: events, envelope, topics, Avro. Imports nothing of ours."""

from msgspec import Struct

from schemas.platform import EVENTS as PLATFORM_EVENTS

EVENTS: list[type[Struct]] = [
    *PLATFORM_EVENTS,
]
"""Every event struct; `schemas/<domain>/__init__.py` lists a domain's in its own EVENTS."""
