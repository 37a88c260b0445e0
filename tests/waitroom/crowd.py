"""A thousand listeners of one room's events, on sockets of their own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from infra.config import Settings

_TOGETHER = 64  # that connect at once; a listen queue is no longer than that


class Listener:
    """One stream of server-sent events, kept open."""

    def __init__(self, settings: Settings, path: str, headers: Mapping[str, str]) -> None:
        self._settings, self._path, self._headers = settings, path, headers

    async def open(self) -> None:
        """Ask, and return when the stream has begun. Raises AssertionError when it is refused."""
        self._reader, self._writer = await asyncio.open_connection(
            self._settings.host, self._settings.port
        )
        lines = [f"GET {self._path} HTTP/1.1", "Host: weir"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.partition(b"\r\n")[0], head.decode()
        await self.until(b"retry:")

    async def until(self, text: bytes) -> bytes:
        """The line that holds this text, once it comes."""
        while text not in (line := await self._reader.readline()):
            assert line, "the stream has ended"
        return line

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


@contextlib.asynccontextmanager
async def listening(
    settings: Settings, path: str, headers: Mapping[str, str], count: int
) -> AsyncIterator[list[Listener]]:
    """So many listeners of one path, all of them open."""
    listeners = [Listener(settings, path, headers) for _ in range(count)]
    try:
        for first in range(0, count, _TOGETHER):
            await asyncio.gather(*(one.open() for one in listeners[first : first + _TOGETHER]))
        yield listeners
    finally:
        for one in listeners:
            with contextlib.suppress(AttributeError):  # one that was never opened
                one.close()
