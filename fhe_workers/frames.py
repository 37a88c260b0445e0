"""The pipe protocol between a worker and its children: a message and its blobs, length first.

Layout: u32 length of the message, u32 number of blobs, u64 length of each blob, the message
(MessagePack), the blobs: the parts of a key. Both sides bound every length, because a child runs
native code on bytes from strangers and a parent must not believe it.
"""

import struct
from collections.abc import Sequence
from typing import BinaryIO, Protocol

from schemas.fhe.parameters import KEY_BYTES_MAX

# An operation's own arguments are the longest thing in a message.
MESSAGE_BYTES_MAX = 256 * 1024
BLOBS_MAX = 8
BLOB_BYTES_MAX = KEY_BYTES_MAX

_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<Q")


class FrameBroken(Exception):
    """The other side sent something that is no frame, or stopped in the middle of one."""


class AsyncSource(Protocol):
    """The reading half of a pipe, such as asyncio.StreamReader."""

    async def readexactly(self, n: int) -> bytes:
        """Exactly `n` bytes, or IncompleteReadError at the end of the stream."""
        ...


def pack(message: bytes, blobs: Sequence[bytes]) -> list[bytes]:
    """The pieces of one frame, to be written one after another without joining them."""
    head = _HEAD.pack(len(message), len(blobs))
    lengths = b"".join(_LENGTH.pack(len(blob)) for blob in blobs)
    return [head + lengths + message, *blobs]


def write(stream: BinaryIO, message: bytes, blobs: Sequence[bytes]) -> None:
    """Write one frame to a blocking stream."""
    for piece in pack(message, blobs):
        stream.write(piece)
    stream.flush()


def read(stream: BinaryIO) -> tuple[bytes, list[bytes]] | None:
    """One frame from a blocking stream, or None when the other side has closed it."""
    head = stream.read(_HEAD.size)
    if not head:
        return None
    message_bytes, count = _checked_head(head)
    lengths = _checked_lengths(_exactly(stream, count * _LENGTH.size))
    message = _exactly(stream, message_bytes)
    return message, [_exactly(stream, length) for length in lengths]


async def read_async(source: AsyncSource) -> tuple[bytes, list[bytes]]:
    """One frame from `source`; IncompleteReadError when the other side is gone."""
    message_bytes, count = _checked_head(await source.readexactly(_HEAD.size))
    lengths = _checked_lengths(await source.readexactly(count * _LENGTH.size)) if count else []
    message = await source.readexactly(message_bytes)
    return message, [await source.readexactly(length) for length in lengths]


def _checked_head(head: bytes) -> tuple[int, int]:
    if len(head) < _HEAD.size:
        raise FrameBroken("the stream ends within the head of a frame")
    message_bytes, count = _HEAD.unpack(head)
    if message_bytes > MESSAGE_BYTES_MAX or count > BLOBS_MAX:
        raise FrameBroken(f"a frame of {message_bytes} bytes and {count} blobs")
    return message_bytes, count


def _checked_lengths(data: bytes) -> list[int]:
    lengths = [length for (length,) in _LENGTH.iter_unpack(data)]
    if any(length > BLOB_BYTES_MAX for length in lengths):
        raise FrameBroken(f"blobs of {lengths} bytes")
    return lengths


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise FrameBroken("the stream ends within a frame")
    return data
