"""Reading a request's body within its limit: by Content-Length before, by count while reading."""

import zlib
from collections.abc import Mapping

from starlette.types import Message, Receive

from api.problems import Problem

# An answer before the body was read lets the server swallow the rest; beyond this it is cheaper to
# close the connection.
_SWALLOW = 16 * 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS


class Disconnected(Exception):
    """The client went away before its request was complete."""


def too_large(limit: int, *, close: bool) -> Problem:
    """The problem of a body over its limit."""
    return Problem(
        413,
        "payload_too_large",
        f"The body is larger than {limit} bytes",
        details={"max_bytes": limit},
        headers={"connection": "close"} if close else None,
    )


def declared_length(headers: Mapping[bytes, bytes], limit: int) -> int | None:
    """The Content-Length. Raises Problem (413) when it is over the limit, (400) when it is none."""
    text = headers.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit():
        raise Problem(400, "validation_error", "Content-Length is not a number", where="header")
    length = int(text)
    if length > limit:
        raise too_large(limit, close=length > _SWALLOW)
    return length


def media_type_of(headers: Mapping[bytes, bytes]) -> str:
    """The Content-Type without its parameters, in lower case."""
    given = headers.get(b"content-type", b"").partition(b";")[0]
    return given.strip().lower().decode("latin-1")


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], limit: int, malformed_status: int = 400
) -> bytes:
    """The whole body, decompressed. Raises Problem (413, 415, `malformed_status`) or Disconnected.

    `limit` bounds what came over the wire and what it expands to.
    """
    declared_length(headers, limit)
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"identity", b"gzip", b""):
        raise Problem(
            415,
            "unsupported_content_encoding",
            "Send the body as it is or compressed with gzip",
            headers={"accept-encoding": "gzip"},
        )
    body = await _collect(receive, limit)
    return gunzip(body, limit, malformed_status) if encoding == b"gzip" else body


async def _collect(receive: Receive, limit: int) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    first: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(first) > limit:
            raise too_large(limit, close=False)
        return first
    chunks, size = [first], len(first)
    while True:
        if size > limit:
            raise too_large(limit, close=True)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        chunks.append(chunk)
        if not message.get("more_body", False) and size <= limit:
            return b"".join(chunks)


def gunzip(body: bytes, limit: int, malformed_status: int = 400) -> bytes:
    """Decompress, all members of it. Raises Problem (413) as soon as it expands over the limit."""
    parts, size, rest = [], 0, body
    while rest:
        member = zlib.decompressobj(_GZIP)
        try:
            part = member.decompress(rest, limit - size + 1)
        except zlib.error:
            raise Problem(malformed_status, "validation_error", "The body is not gzip") from None
        size += len(part)
        if size > limit:
            raise too_large(limit, close=False)
        if not member.eof:
            raise Problem(malformed_status, "validation_error", "The gzip body is cut short")
        parts.append(part)
        rest = member.unused_data
    return b"".join(parts)


def limited(receive: Receive, limit: int) -> Receive:
    """`receive` for a handler that reads the body itself. Raises Problem (413) over the limit."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > limit:
                raise too_large(limit, close=True)
        return message

    return bounded
