"""The contract: events, envelope, topics, Avro. Imports nothing of ours."""

from msgspec import Struct

EVENTS: list[type[Struct]] = []
"""Every event struct; `schemas/<domain>/__init__.py` lists a domain's in its own EVENTS."""
