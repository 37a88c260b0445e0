"""A ClickHouse server: the real engine (chDB) behind the HTTP interface of its big sister, in a
process of its own, for what several processes share.
`python -m tests.clickhouse_server FOLDER PORT`

As in the documented HTTP interface: the query comes in the URL or in the body, data of an INSERT in
the body behind a query in the URL, parameters as `param_name`, everything else in the URL is a
setting; an error has its code in `X-ClickHouse-Exception-Code`.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import chdb
import httpx
import lz4.frame
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.embedded.ports import free_port

START_SECONDS = 60.0
# What belongs to the transport and is no setting of the engine.
_TRANSPORT = frozenset({
    "query", "query_id", "database", "default_format", "buffer_size", "wait_end_of_query",
    "session_id", "session_timeout", "session_check", "client_protocol_version",
    "compress", "decompress", "enable_http_compression",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms",
})  # fmt: skip
_CODE = re.compile(r"Code: (\d+)")
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)


def answer(folder: str, url: Mapping[str, str], body: bytes) -> bytes:
    """What the engine says to one request. Raises RuntimeError with its words."""
    query, data = _query_and_data(url, body)
    parameters = {k.removeprefix("param_"): v for k, v in url.items() if k.startswith("param_")}
    # A handle of its own: settings live as long as the request.
    connection = chdb.connect(folder)
    try:
        for name, value in url.items():
            if name not in _TRANSPORT and not name.startswith("param_"):
                quoted = value.replace("\\", "\\\\").replace("'", "\\'")
                connection.query(f"SET {name} = '{quoted}'")
        found = _FORMAT.search(query)
        form, query = found[1] if found else "TabSeparated", _FORMAT.sub("", query)
        if not data:
            result = connection.query(query, form, params=parameters)
            return bytes(result.bytes() or b"")
        with tempfile.NamedTemporaryFile(suffix=".native") as file:
            file.write(data)
            file.flush()
            connection.query(f"{query} FROM INFILE '{file.name}' FORMAT {form}")
        return b""
    finally:
        connection.close()


def _query_and_data(url: Mapping[str, str], body: bytes) -> tuple[str, bytes]:
    if "query" in url:
        return url["query"], body
    if body[:6].upper() == b"INSERT" and b"FORMAT Native\n" in body[:100_000]:
        query, form, data = body.partition(b"FORMAT Native\n")
        return (query + form).decode(), data
    return body.decode(), b""


def app(folder: str) -> Any:
    """The server, on an engine that stays open."""
    engine = chdb.connect(folder)

    async def handle(request: Request) -> Response:
        body = await request.body()
        try:
            if request.headers.get("content-encoding") == "lz4":
                # Several frames, one after the other.
                body = lz4.frame.open(io.BytesIO(body)).read()
            said = await run_in_threadpool(answer, folder, dict(request.query_params), body)
        except RuntimeError as error:
            code = _CODE.search(str(error))
            headers = {"X-ClickHouse-Exception-Code": code[1] if code else "1001"}
            return Response(str(error), status_code=500, headers=headers)
        return Response(said, headers={"X-ClickHouse-Summary": "{}"})

    async def ping(request: Request) -> Response:
        return Response(bytes(engine.query("SELECT 'Ok.'", "TabSeparatedRaw").bytes()))

    return Starlette(routes=[Route("/ping", ping), Route("/", handle, methods=["GET", "POST"])])


@contextlib.contextmanager
def clickhouse_server(folder: Path) -> Iterator[str]:
    """A running server; gives its URL, `http://127.0.0.1:port/default`."""
    port = free_port()
    command = [sys.executable, "-m", "tests.clickhouse_server", str(folder), str(port)]
    with subprocess.Popen(command, env=dict(os.environ), stdin=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                assert process.poll() is None, "the ClickHouse server has ended"
                assert time.monotonic() < deadline, "the ClickHouse server does not answer"
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/ping").is_success:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/default"
        finally:
            process.kill()


if __name__ == "__main__":
    uvicorn.run(app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
