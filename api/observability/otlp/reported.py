"""A span as it was reported, whatever encoding brought it."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

Attributes = Mapping[str, Any]
"""Attribute name -> a plain JSON value. Bytes are base64 text."""


class Happening(Struct, frozen=True):
    """An event within a span. at: nanoseconds since 1970."""

    name: str
    at: int
    attributes: Attributes


class Origin(Struct, frozen=True):
    """Who reported: the attributes of the resource, and the name of the instrumentation."""

    resource: Attributes
    scope: str


class ReportedSpan(Struct, frozen=True, kw_only=True):
    """One span. Ids are lower-case hex, and "" where what came is none; `parent_id` is None then.

    started_at, ended_at: nanoseconds since 1970, 0 when unknown. kind and status are OTLP's
    numbers.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: int
    started_at: int
    ended_at: int
    attributes: Attributes
    events: list[Happening]
    status: int
    message: str
    origin: Origin


def clean(text: str) -> str:
    """Text without NUL, which no store of ours keeps: a prompt should not be lost for it."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def cleaned(value: Any) -> Any:
    """A JSON value with all its text clean."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, dict):
        return {clean(name): cleaned(item) for name, item in value.items()}
    return value


def id_of(found: bytes, length: int) -> str:
    """An id in hex, "" when it has another length or is all zeros, which OTLP calls invalid."""
    return found.hex() if len(found) == length and any(found) else ""


def parent_of(found: bytes) -> str | None:
    """A parent's id: "" for a root, None when it is no id."""
    if not any(found):
        return ""
    return id_of(found, 8) or None
