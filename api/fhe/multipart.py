"""A multipart body as it arrives: parts one after another, none of them held in memory."""

from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.problems import Problem

PARTS_MAX = 8


class Part:
    """The head of a part; its bytes follow from `Parts.chunks`."""

    def __init__(self, name: str) -> None:
        self.name = name


class Parts:
    """The parts of a body. Read `chunks()` to its end before asking for the `next()` part."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        """Raises Problem (400) when the content type names no boundary."""
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:
            raise _malformed("the Content-Type names no boundary")
        self._body = body
        self._happened: list[Part | bytes | None] = []
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._count = 0
        self._complete = False
        callbacks: Any = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    async def next(self) -> Part | None:
        """The next part, or None behind the last. Raises Problem (400)."""
        happened = await self._next()
        if happened is None:
            return None
        assert isinstance(happened, Part), "the part before was not read to its end"
        return happened

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the part that `next` returned. Raises Problem (400)."""
        while (happened := await self._next()) is not None:
            assert isinstance(happened, bytes), "a part began within a part"
            yield happened

    async def _next(self) -> Part | bytes | None:
        while not self._happened:
            if self._complete:
                return None
            chunk = await anext(self._body, b"")
            if not chunk:
                raise _malformed("the body ends before its last boundary")
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise _malformed(str(error)) from None
        return self._happened.pop(0)

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._count += 1
        if self._count > PARTS_MAX:
            raise _malformed(f"more than {PARTS_MAX} parts")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        self._happened.append(Part(options.get(b"name", b"").decode("utf-8", "replace")))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._happened.append(data[start:end])

    def _on_part_end(self) -> None:
        self._happened.append(None)

    def _on_end(self) -> None:
        self._complete = True


def _malformed(why: str) -> Problem:
    return Problem(400, "validation_error", f"The body is not multipart/form-data: {why}")
