"""Leases: which process runs which partition of a loop.

A row per partition in Postgres, renewed twice a second. It is free when its owner's session with
Postgres has ended, which the kernel sees to the moment a process dies however it dies; and, for one
that is frozen or out of reach, when it has not been renewed for some seconds (`TTL_SECONDS` unless
told otherwise) by Postgres' clock. A lease keeps work apart; it is not what makes the loops exact:
that is the fence of the transactional id and the compare-and-set of the checkpoint, since a paused
process may believe in a lease that it has lost. So a session that ends without its process costs a
change of owners and nothing else.
"""

import asyncio
import contextlib
import logging
from typing import Any

import psycopg

from infra.postgres import DatabaseUnavailable, connect

logger = logging.getLogger(__name__)

TTL_SECONDS = 6.0
BEAT_SECONDS = 0.5

_DDL = """
CREATE TABLE IF NOT EXISTS leases (
  loop text, partition int, owner text NOT NULL, expires_at timestamptz NOT NULL,
  PRIMARY KEY (loop, partition));
CREATE TABLE IF NOT EXISTS lease_members (
  loop text, owner text, expires_at timestamptz NOT NULL, PRIMARY KEY (loop, owner));
ALTER TABLE lease_members ADD COLUMN IF NOT EXISTS session_pid int,
  ADD COLUMN IF NOT EXISTS session_began timestamptz;
"""
SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
# Sessions from before Postgres was restarted say nothing about their processes, nor do those whose
# beginning is another database user's secret.
SESSION_ENDED = """(
  session_began > pg_postmaster_start_time() AND NOT EXISTS (
    SELECT FROM pg_stat_activity AS s WHERE s.pid = m.session_pid
      AND (s.backend_start IS NULL OR s.backend_start = m.session_began)))"""
"""Whether the session of whoever keeps the row `m` (session_pid, session_began) has ended."""
_DROP_DEAD = f"""
DELETE FROM lease_members AS m WHERE loop = %s AND (expires_at < now() OR {SESSION_ENDED})
"""
_TAKE = """
INSERT INTO leases VALUES (%s, %s, %s, now() + make_interval(secs => %s))
ON CONFLICT (loop, partition) DO UPDATE SET owner = EXCLUDED.owner, expires_at = EXCLUDED.expires_at
WHERE leases.expires_at < now() OR NOT EXISTS (
  SELECT FROM lease_members AS m WHERE m.loop = leases.loop AND m.owner = leases.owner)
RETURNING partition
"""


class Leases:
    """One process's share of a loop's partitions.

    `held` changes as leases come and go; await `changed` for that. Fair: with `n` live members
    each holds at most `ceil(partitions / n)`. ttl: seconds after which a lease that was not renewed
    is free although its owner's session goes on.
    """

    def __init__(
        self, url: str, loop: str, partitions: int, owner: str, ttl: float = TTL_SECONDS
    ) -> None:
        self._url, self._loop, self._partitions, self._owner = url, loop, partitions, owner
        self._ttl = ttl
        self._session: tuple[Any, ...] = ()
        self.held: set[int] = set()
        self.changed = asyncio.Condition()
        self.settled = False  # true after the first round
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take and renew leases."""
        self._task = asyncio.create_task(self._run(), name=f"leases-{self._loop}")

    async def stop(self) -> None:
        """Give everything back, so that the next process need not wait."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.held = set()
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                for table in ("leases", "lease_members"):
                    await self._connection.execute(
                        f"DELETE FROM {table} WHERE loop = %s AND owner = %s".encode(),
                        (self._loop, self._owner),
                    )
            await self._connection.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._renew()
            except (psycopg.Error, DatabaseUnavailable) as error:
                # Keep what is held: nobody else can take it while Postgres is away, and nothing
                # can be written without Postgres either.
                logger.warning("leases cannot be renewed: %s", error)
                if self._connection is not None:
                    with contextlib.suppress(Exception):
                        await self._connection.close()
                    self._connection = None
            await asyncio.sleep(min(BEAT_SECONDS, self._ttl / 6))

    async def _renew(self) -> None:
        if self._connection is None:
            self._connection = await connect(self._url, autocommit=True)
            # IF NOT EXISTS is not safe against two creators at once; the lock makes it so.
            async with self._connection.transaction():
                await self._connection.execute("SELECT pg_advisory_xact_lock(7300)")
                await self._connection.execute(_DDL)
                session = await (await self._connection.execute(SESSION)).fetchone()
            assert session is not None  # a session sees itself
            self._session = (session["pid"], session["backend_start"])
        members = await self._beat(self._connection)
        share = -(-self._partitions // max(1, members))
        held = await self._take(self._connection, share)
        self.settled = True
        if held != self.held:
            async with self.changed:
                self.held = held
                self.changed.notify_all()

    async def _beat(self, connection: psycopg.AsyncConnection[Any]) -> int:
        await connection.execute(
            "INSERT INTO lease_members (loop, owner, session_pid, session_began, expires_at) "
            "VALUES (%s, %s, %s, %s, now() + make_interval(secs => %s)) "
            "ON CONFLICT (loop, owner) DO UPDATE SET session_pid = EXCLUDED.session_pid, "
            "session_began = EXCLUDED.session_began, expires_at = EXCLUDED.expires_at",
            (self._loop, self._owner, *self._session, self._ttl),
        )
        await connection.execute(_DROP_DEAD.encode(), (self._loop,))
        cursor = await connection.execute(
            "SELECT count(*) AS n FROM lease_members WHERE loop = %s", (self._loop,)
        )
        row = await cursor.fetchone()
        return int(row["n"]) if row else 1

    async def _take(self, connection: psycopg.AsyncConnection[Any], share: int) -> set[int]:
        cursor = await connection.execute(
            "UPDATE leases SET expires_at = now() + make_interval(secs => %s) "
            "WHERE loop = %s AND owner = %s RETURNING partition",
            (self._ttl, self._loop, self._owner),
        )
        held = {int(row["partition"]) for row in await cursor.fetchall()}
        for partition in sorted(held, reverse=True)[: max(0, len(held) - share)]:
            # More than the share: hand one back, a step at a time.
            await connection.execute(
                "DELETE FROM leases WHERE loop = %s AND partition = %s AND owner = %s",
                (self._loop, partition, self._owner),
            )
            held.discard(partition)
        for partition in range(self._partitions):
            if len(held) >= share or partition in held:
                continue
            cursor = await connection.execute(
                _TAKE, (self._loop, partition, self._owner, self._ttl)
            )
            if await cursor.fetchone():
                held.add(partition)
        return held
