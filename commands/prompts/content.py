"""The content of a prompt's version: any JSON value, kept and hashed as Python writes it.

The hash is what links a version to the calls that were made with it: a client takes SHA-256 of
`json.dumps(content, sort_keys=True)` and reports it as a call's `prompt_hash`. So the text that
came is read with Python's own reader, which gives the numbers and strings that the client has.
"""

import hashlib
import json
from typing import Any

import msgspec
from msgspec import Raw, Struct


class Content(Struct, frozen=True):
    """text: JSON with keys in the order in which they came. hash: SHA-256 in hex, keys sorted."""

    text: str
    hash: str


def read_content(raw: bytes) -> Content:
    """The content in a JSON text. Raises ValueError for numbers that Python would not write again:
    beyond a double's range, integers of thousands of digits."""
    value = json.loads(raw)
    return Content(json.dumps(value, ensure_ascii=False, allow_nan=False), hash_of(value))


def hash_of(value: Any) -> str:
    """The `prompt_hash` that a client computes for a content of its own."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def overridden(config: str, overrides: str) -> str:
    """A JSON object with the members of another on top; members are kept to the letter."""
    members = {
        **msgspec.json.decode(config, type=dict[str, Raw]),
        **msgspec.json.decode(overrides, type=dict[str, Raw]),
    }
    return msgspec.json.encode(members).decode()
