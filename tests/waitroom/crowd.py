"""A crowd that listens to one stream of events, on sockets of their own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from bench.connection import KeptConnection

_TOGETHER = 64  # that connect at once; a listen queue is no longer than that


@contextlib.asynccontextmanager
async def listening(
    port: int, path: str, headers: Mapping[str, str], count: int
) -> AsyncIterator[list[KeptConnection]]:
    """So many listeners of one path, each of which has begun to be told."""
    crowd: list[KeptConnection] = []
    try:
        while len(crowd) < count:
            more = [
                KeptConnection(port, headers) for _ in range(min(_TOGETHER, count - len(crowd)))
            ]
            await asyncio.gather(*(one.open() for one in more))
            crowd += more
            await asyncio.gather(*(one.listen(path) for one in more))
        yield crowd
    finally:
        for one in crowd:
            one.close()
