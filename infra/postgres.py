"""Postgres: a small pool for reads, and connections for the loops that own rows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

Row = dict[str, Any]


class DatabaseUnavailable(Exception):
    """Postgres did not answer in time, or the connection was lost."""

    retry_after = 2


_OPTIONS = "-c statement_timeout=15000 -c idle_in_transaction_session_timeout=30000"


async def connect(url: str, *, autocommit: bool = False) -> psycopg.AsyncConnection[Row]:
    """A connection of one's own. Raises DatabaseUnavailable."""
    try:
        return await psycopg.AsyncConnection.connect(
            url, autocommit=autocommit, row_factory=dict_row, options=_OPTIONS, connect_timeout=5
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(str(error).strip()) from error


class Reads:
    """Queries on the read models: a pool of autocommit connections, at most `size`."""

    def __init__(self, url: str, size: int = 4) -> None:
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Row]] = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size,
            timeout=3.0,
            open=False,
            check=AsyncConnectionPool.check_connection,
            reconnect_timeout=5,
            kwargs={"autocommit": True, "row_factory": dict_row, "options": _OPTIONS},
        )

    async def start(self) -> None:
        """Open the pool; connections are made in the background."""
        await self._pool.open(wait=False)

    async def stop(self) -> None:
        """Close the pool."""
        await self._pool.close(timeout=2)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise DatabaseUnavailable(str(error).strip()) from error

    async def all(self, sql: str, *params: Any) -> list[Row]:
        """Every row, as dicts. `%s` parameters only. Raises DatabaseUnavailable."""
        async with self._connection() as connection:
            cursor = await connection.execute(sql.encode(), params)
            return await cursor.fetchall()

    async def one(self, sql: str, *params: Any) -> Row | None:
        """The first row, or None. Raises DatabaseUnavailable."""
        async with self._connection() as connection:
            cursor = await connection.execute(sql.encode(), params)
            return await cursor.fetchone()
