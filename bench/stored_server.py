"""The API over stored calls: `python -m bench.stored_server PORT FOLDER`.

The whole API as its role serves it, on the engine of the folder; only the credential is made up,
and nothing is written. Every answer says in `x-rows-read` and `x-bytes-read` what ClickHouse read
for it, and `x-queries` in how many queries.
"""

import contextvars
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import uvloop
from clickhouse_connect.driver._backend.chdb_backend import ChdbBackend
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import build_app
from api.credentials import ApiKey, lookup_prefix
from api.services import Services
from bench.stored_calls import LARGE
from bench.telemetry_servers import KEY, serve
from infra.clickhouse import ClickHouse, Row
from infra.ids import Signer, new_id, secret_hash
from projections import CLICKHOUSE_VIEWS
from tests.api.harness import SECRET, memory_settings
from tests.api.memory import MemoryBus, MemoryCredentials, MemoryLog, MemoryReads


@dataclass
class Read:
    """What the queries of one request have read."""

    queries: int = 0
    rows: int = 0
    bytes: int = 0


def _storage_read(result: Any) -> dict[str, Any]:
    return {
        "read_rows": str(result.storage_rows_read()),
        "read_bytes": str(result.storage_bytes_read()),
    }


_read: contextvars.ContextVar[Read] = contextvars.ContextVar("read")


class CountingClickHouse(ClickHouse):
    """Takes note of what each query reads."""

    async def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        def run(client: Any) -> tuple[list[Row], Mapping[str, Any]]:
            result = client.query(
                sql, parameters=dict(params or {}), settings={"query_id": new_id("query")}
            )
            return list(result.named_results()), result.summary

        rows, summary = await self._on(self._readers, run)
        if (read := _read.get(None)) is not None:
            read.queries += 1
            read.rows += int(summary.get("read_rows", 0))
            read.bytes += int(summary.get("read_bytes", 0))
        return rows


def counting(app: ASGIApp) -> ASGIApp:
    """The application with those headers in its answers."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        read = Read()
        _read.set(read)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                for name, value in (
                    (b"x-queries", read.queries),
                    (b"x-rows-read", read.rows),
                    (b"x-bytes-read", read.bytes),
                ):
                    message["headers"].append((name, str(value).encode()))
            await send(message)

        await app(scope, receive, sending)

    return counted


async def main(port: int, folder: str) -> None:
    """Serve until the process is told to end."""
    # The driver tells what the answer has, not what was read for it.
    ChdbBackend._summary = staticmethod(_storage_read)
    credentials = MemoryCredentials()
    credentials.api_keys[lookup_prefix(KEY)] = ApiKey(
        "key_1", LARGE, secret_hash(KEY), roles=frozenset({"developer"})
    )
    clickhouse = CountingClickHouse(f"chdb://{folder}")
    await clickhouse.start()
    for view in CLICKHOUSE_VIEWS:
        await clickhouse.command(view.ddl())
    services = Services(
        settings=memory_settings(),
        signer=Signer(SECRET),
        bus=MemoryBus(),
        reads=MemoryReads(),
        credentials=credentials,
        analytics=clickhouse,
        log=MemoryLog(),
    )
    await serve(counting(build_app(services)), port)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
