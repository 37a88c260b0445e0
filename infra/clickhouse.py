"""ClickHouse through clickhouse-connect: `chdb://` inside the process, or `http(s)://` a server.

The client is synchronous and a chDB handle is one thread's, so every thread of a small pool has its
own client; a thread of its own writes, so that queries never wait behind an insert. A handle with
an open stream answers other queries with nothing, hence no streaming here at all.

What holds for every client: deduplicated reads (`final`), no asynchronous inserts (an acknowledged
one could still be dropped), bounded time and memory. Instants travel as integers: a naive datetime
would shift by the host's zone.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver import exceptions

from schemas.envelope import Position

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row = dict[str, Any]

QUERY_TIMEOUT_SECONDS = 15
WAITING_MAX = 64
"""Queries that may wait for a thread; more are turned away, since they would time out anyway."""

_SETTINGS: dict[str, Any] = {
    "final": 1,
    "async_insert": 0,
    "max_execution_time": QUERY_TIMEOUT_SECONDS,
    "max_memory_usage": 2_000_000_000,
    "max_threads": 2,
    # To start a thread takes longer than to look into the indexes that a page asks.
    "max_threads_for_indexes": 1,
    "max_insert_threads": 1,
    # No block has a row twice by what its table replaces by (`observability/unmerged.py`).
    "optimize_on_insert": 1,
    # An insert travels in several blocks; the server joins them into one, which is in or not.
    "min_insert_block_size_rows": 2_000_000,
    "min_insert_block_size_bytes": 1_000_000_000,
    "output_format_json_quote_64bit_integers": 0,
}

# What not every server knows yet. A piece of a word is looked for among the words of the index,
# however many rows those are in: reading the texts takes twenty times as long. By default that is
# done only where few are found.
_WHERE_KNOWN: dict[str, Any] = {
    "text_index_like_min_pattern_length": 2,
    "text_index_like_max_postings_to_read": 1_000_000,
    # It would take the place of what is asked before other columns are read. Pages mostly have
    # bounds of their own: a model's dearest calls take a tenth less without it, and those of a
    # search, which have none, 4 % more.
    "use_top_k_dynamic_filtering": 0,
}

# Server errors that say "not now" rather than "never": a table that the loop has still to make,
# memory, time, too many parts or queries, a lost network or replica.
# https://github.com/ClickHouse/ClickHouse: src/Common/ErrorCodes.cpp
_PASSING_CODES = frozenset({60, 159, 160, 202, 209, 210, 241, 242, 243, 252, 279, 319, 425, 999})

_ARROW_PIECE_ROWS = 2_000

POSITIONS_TABLE = "log_positions"
_POSITIONS_DDL = f"""CREATE TABLE IF NOT EXISTS {POSITIONS_TABLE} (
  topic LowCardinality(String), partition UInt32, view LowCardinality(String), next_offset UInt64
) ENGINE = ReplacingMergeTree(next_offset) ORDER BY (topic, partition, view)
SETTINGS non_replicated_deduplication_window = 1000"""
POSITIONS_COLUMNS = ("topic", "partition", "view", "next_offset")
POSITIONS_TYPES = ("LowCardinality(String)", "UInt32", "LowCardinality(String)", "UInt64")


class AnalyticsUnavailable(Exception):
    """ClickHouse did not answer in time, cannot be reached or has too much to do."""

    retry_after = 2


class RowsRefused(Exception):
    """An insert that will never succeed: a value does not fit its column."""


def _arrow_stream(
    names: Sequence[str], types: Sequence[str], columns: Sequence[Any]
) -> Iterator[bytes]:
    """Arrow columns as an IPC stream, in pieces that are small enough for their memory to be used
    again.

    They travel in the types of ClickHouse's, whose own conversion would cut off what does not fit.
    Raises ArrowInvalid, a ValueError, where a value doesn't.
    """
    import pyarrow as pa

    kinds = {
        "String": pa.string(),
        "LowCardinality(String)": pa.string(),
        "Float64": pa.float64(),
        "DateTime64(6, 'UTC')": pa.timestamp("us", "UTC"),
        **{f"Int{bits}": getattr(pa, f"int{bits}")() for bits in (8, 16, 32, 64)},
        **{f"UInt{bits}": getattr(pa, f"uint{bits}")() for bits in (8, 16, 32, 64)},
    }
    cast = [column.cast(kinds[kind]) for column, kind in zip(columns, types, strict=True)]
    batch = pa.RecordBatch.from_arrays(cast, list(names))

    def pieces() -> Iterator[bytes]:
        yield batch.schema.serialize().to_pybytes()
        for start in range(0, batch.num_rows, _ARROW_PIECE_ROWS):
            yield batch.slice(start, _ARROW_PIECE_ROWS).serialize().to_pybytes()
        yield b"\xff\xff\xff\xff\x00\x00\x00\x00"

    return pieces()


def _client(url: str, query_seconds: int) -> Any:
    """A client of one's own for the calling thread."""
    parts = urlsplit(url)
    settings = {**_SETTINGS, "max_execution_time": query_seconds}
    if parts.scheme == "chdb":
        client = clickhouse_connect.get_client(dsn=url, settings=settings)
    else:
        client = _http_client(parts, settings, query_seconds)
    for name in _WHERE_KNOWN.keys() & client.server_settings.keys():
        client.set_client_setting(name, _WHERE_KNOWN[name])
    return client


def _http_client(parts: SplitResult, settings: dict[str, Any], query_seconds: int) -> Any:
    return clickhouse_connect.get_client(
        host=parts.hostname or "localhost",
        port=parts.port,
        username=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=parts.path.strip("/") or None,
        secure=parts.scheme == "https",
        settings=settings,
        connect_timeout=3,
        send_receive_timeout=query_seconds + 5,
        autogenerate_session_id=False,
        query_retries=1,
    )


class ClickHouse:
    """One per process: the only door to ClickHouse, and what is known of how far its views are.

    `query` and `reached` are for everybody; `insert` and `advance` are the analytics loop's.
    `follow` names the partitions that this process's loop fills and `advance` tells how far they
    are; for all others `reached` asks the table of positions.
    tables: the live tables by the topic they are filled from. query_seconds: how long a query may
    take.
    """

    def __init__(
        self,
        url: str,
        *,
        tables: Mapping[str, Sequence[str]] | None = None,
        threads: int = 4,
        query_seconds: int = QUERY_TIMEOUT_SECONDS,
    ) -> None:
        self.url, self._query_seconds = url, query_seconds
        self.tables = {topic: list(names) for topic, names in (tables or {}).items()}
        self._local = threading.local()
        self._clients: list[Any] = []
        self._guard = threading.Lock()
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="clickhouse-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="clickhouse-write")
        self._waiting = 0
        self._next: dict[tuple[str, int], int] = {}
        self._followed: frozenset[tuple[str, int]] = frozenset()
        self._moved = asyncio.Event()

    @property
    def embedded(self) -> bool:
        """Whether the engine is inside this process."""
        return self.url.startswith("chdb:")

    async def start(self) -> None:
        """Connect, make the table of positions and pay for the first insert, which takes seconds.

        Raises AnalyticsUnavailable.
        """
        await self.command(_POSITIONS_DDL)
        await self.insert(
            POSITIONS_TABLE,
            POSITIONS_COLUMNS,
            POSITIONS_TYPES,
            [["_warm_up"], [0], ["_warm_up"], [0]],
            token="warm-up",
        )

    async def stop(self) -> None:
        """Let running calls finish, then close every client."""
        for pool in (self._readers, self._writer):
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)
        with self._guard:
            clients, self._clients = self._clients, []
        for client in clients:
            await asyncio.to_thread(client.close)

    async def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of a SELECT; values only through `{name:Type}` parameters.

        Raises AnalyticsUnavailable.
        """

        def run(client: Any) -> list[Row]:
            result = client.query(sql, parameters=dict(params or {}))
            return list(result.named_results())

        return await self._on(self._readers, run)

    async def command(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """Run a statement without a result. Raises AnalyticsUnavailable."""
        await self._on(self._writer, lambda client: client.command(sql, parameters=params))

    async def insert(
        self,
        table: str,
        names: Sequence[str],
        types: Sequence[str],
        columns: Sequence[Any],
        *,
        token: str,
    ) -> None:
        """Insert one block; a repeat with the same token changes nothing.

        columns: in the order of `names`; all of them sequences of plain values, or all of them
        Arrow arrays, which need no Python object for a value.

        Raises AnalyticsUnavailable (the block may be in, the token makes a repeat safe) or
        RowsRefused.
        """

        def run(client: Any) -> None:
            settings = {"insert_deduplication_token": token}
            try:
                if hasattr(columns[0], "cast"):
                    stream = _arrow_stream(names, types, columns)
                    client.raw_insert(table, names, stream, fmt="ArrowStream", settings=settings)
                    return
                client.insert(
                    table,
                    columns,
                    column_names=names,
                    column_type_names=types,
                    column_oriented=True,
                    settings=settings,
                )
            except exceptions.OperationalError:
                raise
            except (exceptions.Error, ValueError, TypeError, OverflowError) as error:
                if getattr(error, "code", None) in _PASSING_CODES:
                    raise
                raise RowsRefused(f"{table}: {error}") from error

        await self._on(self._writer, run)

    async def _on(self, pool: ThreadPoolExecutor, work: Callable[[Any], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise AnalyticsUnavailable("too many queries wait")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, self._call, work)
        finally:
            self._waiting -= 1

    def _call(self, work: Callable[[Any], T]) -> T:
        client = None
        try:
            client = getattr(self._local, "client", None)
            if client is None:
                client = self._local.client = _client(self.url, self._query_seconds)
                with self._guard:
                    self._clients.append(client)
            return work(client)
        except (exceptions.OperationalError, exceptions.InterfaceError, OSError) as error:
            self._forget(client)
            raise AnalyticsUnavailable(str(error)[:500]) from error
        except exceptions.Error as error:
            if error.code in _PASSING_CODES:
                raise AnalyticsUnavailable(str(error)[:500]) from error
            raise

    def _forget(self, client: Any) -> None:
        """Drop this thread's client: the next call connects anew."""
        if client is None:
            return
        self._local.client = None
        with self._guard:
            if client in self._clients:
                self._clients.remove(client)
        try:
            client.close()
        except Exception as error:
            logger.debug("closing a lost ClickHouse client failed: %s", error)

    def follow(self, places: Iterable[tuple[str, int]]) -> None:
        """This process's loop fills these partitions: `advance` will say how far they are."""
        self._followed = frozenset(places)
        self._next = {place: self._next[place] for place in self._followed & set(self._next)}

    def advance(self, reached: Mapping[tuple[str, int], int]) -> None:
        """The views hold every record before these offsets, by topic and partition."""
        self._next.update(reached)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    @property
    def fills(self) -> bool:
        """Whether this process's loop fills any partition."""
        return bool(self._followed)

    async def positions(self) -> dict[tuple[str, int], int]:
        """By topic and partition, the next offset that the views don't hold yet.

        Of the partitions that this process fills; where it fills none, of all, as the table of
        positions has them. Raises AnalyticsUnavailable.
        """
        if self._followed:
            return {place: self._next.get(place, 0) for place in self._followed}
        found: dict[tuple[str, int], int] = {}
        for topic, tables in self.tables.items():
            rows = await self.query(
                f"SELECT partition, view, max(next_offset) AS next FROM {POSITIONS_TABLE}"
                " WHERE topic = {topic:String} AND view IN {views:Array(String)}"
                " GROUP BY partition, view",
                {"topic": topic, "views": tables},
            )
            for row in rows:
                place = (topic, int(row["partition"]))
                found[place] = min(found.get(place, row["next"]), row["next"])
        return found

    async def reached(self, position: Position, timeout: float) -> bool:
        """Wait until the views hold the record at `position`; False when `timeout` has passed.

        A topic that no view reads has nothing to wait for. Raises AnalyticsUnavailable for a
        partition that another process fills.
        """
        place = (position.topic, position.partition)
        if position.topic not in self.tables:
            return True
        try:
            async with asyncio.timeout(timeout):
                while self._next.get(place, 0) <= position.offset:
                    if place in self._followed:
                        await self._moved.wait()
                    elif (next_offset := await self._stored_next(place)) > position.offset:
                        self._next[place] = next_offset
                    else:
                        await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        return True

    async def _stored_next(self, place: tuple[str, int]) -> int:
        tables = self.tables[place[0]]
        rows = await self.query(
            f"SELECT view, max(next_offset) AS next FROM {POSITIONS_TABLE} WHERE topic = "
            "{topic:String} AND partition = {partition:UInt32} AND view IN {views:Array(String)}"
            " GROUP BY view",
            {"topic": place[0], "partition": place[1], "views": tables},
        )
        return min((int(row["next"]) for row in rows), default=0) if len(rows) == len(tables) else 0
