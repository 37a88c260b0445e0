"""What this server offers: OpenAPI, AsyncAPI, a page to read, and the keys that sign our tokens."""

from importlib import resources
from typing import Any

import msgspec

from api.openapi import build_openapi
from api.routing import Answer, Call
from commands import commands
from infra.event_docs import build_asyncapi
from schemas import EVENTS

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)
_KEEP = "public, max-age=60"


async def openapi(call: Call[None, None]) -> Answer:
    """The OpenAPI 3.1 document of this server."""
    caches = call.services.caches
    document = caches.get("openapi")
    if document is None:
        document = caches["openapi"] = msgspec.json.encode(build_openapi(caches["routes"]))
    return Answer(document, headers={"cache-control": _KEEP})


async def asyncapi(call: Call[None, None]) -> Answer:
    """The AsyncAPI document of the log behind this server."""
    caches = call.services.caches
    document = caches.get("asyncapi")
    if document is None:
        document = caches["asyncapi"] = msgspec.json.encode(build_asyncapi(EVENTS, commands()))
    return Answer(document, headers={"cache-control": _KEEP})


async def page(call: Call[None, None]) -> Answer:
    """The page: one file, nothing from elsewhere."""
    text = call.services.caches.get("docs")
    if text is None:
        text = (resources.files("api.platform") / "docs.html").read_bytes()
        call.services.caches["docs"] = text
    headers = {
        "cache-control": _KEEP,
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
    }
    return Answer(text, headers=headers, media_type="text/html; charset=utf-8")


async def jwks(call: Call[None, None]) -> Any:
    """The public keys of our access tokens."""
    return Answer(call.services.tokens.jwks(), headers={"cache-control": "public, max-age=300"})
