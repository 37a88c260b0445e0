"""Bodies within their limits: by Content-Length unread, by count while they come, gzip too."""

import gzip
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from api.bodies import gunzip
from api.problems import Problem
from tests.api.harness import Harness
from tests.api.sample import COUNTER, ROUTES

TELEMETRY = "/api/v1/observe/telemetry"  # takes 1000 bytes


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(ROUTES, deciders=[COUNTER]) as harness:
        yield harness


async def call(
    app: Harness, path: str, messages: Iterable[dict[str, Any]], headers: dict[str, str]
) -> tuple[list[dict[str, Any]], int]:
    """Speak ASGI: what was sent, and how many messages were taken from the client."""
    sent: list[dict[str, Any]] = []
    waiting = list(messages)
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.1", 1),
    }
    await app.app(scope, receive, send)
    return sent, taken


def chunk(size: int, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": b" " * size, "more_body": more}


def header(sent: list[dict[str, Any]], name: bytes) -> bytes | None:
    return dict(sent[0]["headers"]).get(name)


async def test_a_declared_length_over_the_limit_is_refused_unread(app: Harness) -> None:
    headers = {**app.key(), "Content-Length": "1001"}
    sent, taken = await call(app, TELEMETRY, [], headers)
    assert (sent[0]["status"], taken) == (413, 0)
    assert header(sent, b"connection") is None
    huge = {**headers, "Content-Length": str(10**12)}
    sent, taken = await call(app, TELEMETRY, [], huge)
    assert (sent[0]["status"], taken) == (413, 0)
    assert header(sent, b"connection") == b"close"


async def test_a_body_without_length_is_counted_while_it_comes(app: Harness) -> None:
    headers = {**app.key(), "Transfer-Encoding": "chunked"}
    sent, taken = await call(app, TELEMETRY, [chunk(400)] * 1000, headers)
    assert (sent[0]["status"], taken) == (413, 3)
    assert header(sent, b"connection") == b"close"
    whole = [chunk(1001, more=False)]
    sent, _ = await call(app, TELEMETRY, whole, headers)
    assert sent[0]["status"] == 413


async def test_a_body_that_just_fits_in_pieces_is_read(app: Harness) -> None:
    body = {"type": "http.request", "body": b'{"note":"x"}', "more_body": False}
    sent, taken = await call(app, TELEMETRY, [chunk(500), chunk(488), body], app.key())
    assert (sent[0]["status"], taken) == (202, 3)


async def test_a_client_that_leaves_is_not_answered(app: Harness) -> None:
    for before in ([], [chunk(10)]):
        sent, _ = await call(app, TELEMETRY, [*before, {"type": "http.disconnect"}], app.key())
        assert sent == []


async def test_gzip_is_unpacked_within_the_limit(app: Harness) -> None:
    headers = {**app.key(), "Content-Encoding": "gzip"}
    good = gzip.compress(b'{"note":"' + b"x" * 900 + b'"}')
    answer = await app.client.post(TELEMETRY, content=good, headers=headers)
    assert answer.status_code == 202
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) > 1000
    answer = await app.client.post(TELEMETRY, content=bomb, headers=headers)
    assert answer.status_code == 413
    small_bomb = gzip.compress(b" " * 500_000)
    assert len(small_bomb) < 1000
    answer = await app.client.post(TELEMETRY, content=small_bomb, headers=headers)
    assert answer.status_code == 413
    for bad in (b"not gzip", good[:-9], zlib.compress(b"{}")):
        answer = await app.client.post(TELEMETRY, content=bad, headers=headers)
        assert answer.status_code == 400


async def test_another_encoding_is_not_supported(app: Harness) -> None:
    headers = {**app.key(), "Content-Encoding": "br"}
    answer = await app.client.post(TELEMETRY, content=b"{}", headers=headers)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip")


def test_members_of_gzip_add_up() -> None:
    twice = gzip.compress(b"a" * 600) + gzip.compress(b"b" * 400)
    assert gunzip(twice, 1000) == b"a" * 600 + b"b" * 400
    with pytest.raises(Problem) as caught:
        gunzip(twice, 999)
    assert caught.value.status == 413


async def test_bytes_come_as_they_are(app: Harness) -> None:
    answer = await app.client.post("/api/v1/keys", content=b"\x00\xff" * 2500, headers=app.key())
    assert answer.json() == {"size": 5000}
    answer = await app.client.post("/api/v1/keys", content=b"x" * 5001, headers=app.key())
    assert answer.status_code == 413
    assert answer.json()["error"]["details"] == {"max_bytes": 5000}


async def test_a_handler_that_reads_the_body_itself_is_bounded_too(app: Harness) -> None:
    path, headers = "/api/v1/keys/parts", app.key()
    answer = await app.client.post(path, content=b"x" * 5000, headers=headers)
    assert answer.json() == {"size": 5000}
    answer = await app.client.post(path, content=b"x" * 5001, headers=headers)
    assert answer.status_code == 413


async def test_unknown_fields_are_ignored_and_nan_is_null_where_telemetry_says_so(
    app: Harness,
) -> None:
    body = b'{"note":"x","unknown":NaN}'
    answer = await app.client.post(TELEMETRY, content=body, headers=app.key())
    assert answer.status_code == 202
    strict = await app.client.post("/v1/sums/1", content=b'{"n":1,"x":NaN}', headers=app.human())
    assert strict.status_code == 400
