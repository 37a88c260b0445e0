"""Postgres: a small pool for reads, and connections for the loops that own rows."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

Row = dict[str, Any]
T = TypeVar("T")


class DatabaseUnavailable(Exception):
    """Postgres did not answer in time, or the connection was lost."""

    retry_after = 2


# How long a read waits for a connection that answers, and then for its rows. The server's own
# limits do not help when it is frozen or cut off: then nothing comes back at all.
CONNECTION_SECONDS = 3.0
QUERY_SECONDS = 10.0

# How long a transaction may hold its locks. That of idle sessions does not do: a client that stands
# still in the middle of a pipeline is not idle to the server, and would hold them for good.
TRANSACTION_SECONDS = 20

_OPTIONS = f"-c statement_timeout=15000 -c transaction_timeout={TRANSACTION_SECONDS}s"


async def connect(url: str, *, autocommit: bool = False) -> psycopg.AsyncConnection[Row]:
    """A connection of one's own. Raises DatabaseUnavailable."""
    try:
        return await psycopg.AsyncConnection.connect(
            url, autocommit=autocommit, row_factory=dict_row, options=_OPTIONS, connect_timeout=5
        )
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(str(error).strip()) from error


async def execute_ddl(
    connection: psycopg.AsyncConnection[Any], lock: int, statements: Iterable[str]
) -> None:
    """Execute statements in the caller's transaction, one process at a time: `lock` is theirs."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
    for statement in statements:
        await connection.execute(statement.encode())


class Reads:
    """Queries on the read models: a pool of autocommit connections, at most `size`."""

    def __init__(self, url: str, size: int = 4) -> None:
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Row]] = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size,
            timeout=CONNECTION_SECONDS,
            open=False,
            check=AsyncConnectionPool.check_connection,
            reconnect_timeout=5,
            kwargs={"autocommit": True, "row_factory": dict_row, "options": _OPTIONS},
        )
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Open the pool; connections are made in the background."""
        await self._pool.open(wait=False)

    async def stop(self) -> None:
        """Close the pool."""
        for task in self._abandoned:
            task.cancel()  # the second time it closes the connection at once
        await asyncio.gather(*self._abandoned, return_exceptions=True)
        await self._pool.close(timeout=2)

    async def all(self, sql: str, *params: Any) -> list[Row]:
        """Every row, as dicts. `%s` parameters only. Raises DatabaseUnavailable."""

        async def ask(connection: psycopg.AsyncConnection[Row]) -> list[Row]:
            return await (await connection.execute(sql.encode(), params)).fetchall()

        return await self._answer(ask)

    async def one(self, sql: str, *params: Any) -> Row | None:
        """The first row, or None. Raises DatabaseUnavailable."""

        async def ask(connection: psycopg.AsyncConnection[Row]) -> Row | None:
            return await (await connection.execute(sql.encode(), params)).fetchone()

        return await self._answer(ask)

    async def _answer(self, ask: Callable[[psycopg.AsyncConnection[Row]], Awaitable[T]]) -> T:
        """What `ask` finds. In a task of its own, because a query that is cancelled waits for the
        server in its turn (psycopg, ten seconds), and whoever asked has gone by then."""
        connected = asyncio.get_running_loop().create_future()

        async def work() -> T:
            async with self._pool.connection() as connection:
                connected.set_result(None)
                return await ask(connection)

        task = asyncio.create_task(work())
        try:
            await asyncio.wait(
                {task, connected},
                timeout=CONNECTION_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if connected.done():
                await asyncio.wait({task}, timeout=QUERY_SECONDS)
            if not task.done():
                raise DatabaseUnavailable("no answer in time")
            return task.result()
        except (PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise DatabaseUnavailable(str(error).strip()) from error
        finally:
            if not task.done():
                task.cancel()
                self._abandoned.add(task)
                task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # nobody asks for it any more
