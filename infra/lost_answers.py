"""What the API processes of an installation tell each other of answers that were lost, in Postgres.

`lost_answers` has a row for a minute for each command whose answer reached nobody; a process hears
of a new row at once (NOTIFY), and reads those of the last minute when it starts. `api_processes`
has a row for each process, renewed by its beats. It is that of a dead one when its session has
ended and no beat came by another, or when none came for some seconds in which one could have.

None of it is the truth of anything: it all may be lost, and requests are then taken for new ones.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from msgspec import Struct

from infra.leases import SESSION, SESSION_ENDED, TTL_SECONDS
from infra.postgres import connect

GRACE_SECONDS = 0.5
_CHANNEL = "lost_answers"
_DDL = """
CREATE TABLE IF NOT EXISTS lost_answers (
  command_id text PRIMARY KEY, request text NOT NULL, claims int NOT NULL DEFAULT 0,
  lost_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX IF NOT EXISTS lost_answers_request ON lost_answers (request);
CREATE INDEX IF NOT EXISTS lost_answers_lost_at ON lost_answers (lost_at);
CREATE TABLE IF NOT EXISTS api_processes (
  name text PRIMARY KEY, session_pid int NOT NULL, session_began timestamptz NOT NULL,
  said_at bigint NOT NULL, unanswered_since bigint NOT NULL, beat_at timestamptz NOT NULL);
"""
_TELL = """
WITH told AS (
  INSERT INTO lost_answers (command_id, request, lost_at)
  SELECT id, request, now() - make_interval(secs => age)
  FROM unnest(%s::text[], %s::text[], %s::float8[]) AS one (id, request, age)
  ON CONFLICT DO NOTHING RETURNING request, command_id)
SELECT pg_notify('lost_answers', request || ' ' || command_id) FROM told
"""
# A command that another process has answered meanwhile has no row, and gets none.
_TELL_AGAIN = """
WITH told AS (
  UPDATE lost_answers SET lost_at = now(), claims = greatest(claims - 1, 0)
  WHERE command_id = ANY(%s) RETURNING request, command_id)
SELECT pg_notify('lost_answers', request || ' ' || command_id) FROM told
"""
_CLAIM = """
UPDATE lost_answers SET claims = claims + 1 WHERE command_id = (
  SELECT command_id FROM lost_answers
  WHERE request = %s AND lost_at > now() - make_interval(secs => %s)
  ORDER BY claims, lost_at, command_id LIMIT 1)
RETURNING command_id
"""
_KNOWN = """
SELECT request, command_id, extract(epoch FROM now() - lost_at)::float8 AS age FROM lost_answers
WHERE lost_at > now() - make_interval(secs => %s) ORDER BY lost_at DESC LIMIT %s
"""
_BEAT = """
INSERT INTO api_processes VALUES (%s, %s, %s, %s, %s, now())
ON CONFLICT (name) DO UPDATE SET session_pid = EXCLUDED.session_pid,
  session_began = EXCLUDED.session_began, said_at = EXCLUDED.said_at,
  unanswered_since = EXCLUDED.unanswered_since, beat_at = EXCLUDED.beat_at
"""
# A process that lives may lose its session, and has a new one at once. After Postgres was away,
# which requests survive, all are silent: who is back first waits for the others.
_DEAD = f"""
SELECT name, said_at, unanswered_since, beat_at,
  extract(epoch FROM now() - beat_at)::float8 AS silent
FROM api_processes AS m WHERE name <> %(name)s AND (
  (beat_at < now() - make_interval(secs => %(grace)s) AND {SESSION_ENDED})
  OR (beat_at < now() - make_interval(secs => %(ttl)s)
    AND %(session_began)s < now() - make_interval(secs => %(ttl)s)))
"""


class Told(Struct, frozen=True):
    """An answer that was lost `age` seconds ago: the request, and the command that it was."""

    request: str
    command_id: str
    age: float = 0.0


class Dead(Struct, frozen=True):
    """A process that is gone. What it began before `unanswered_since` was answered or told, as it
    said at `said_at`; both are microseconds since 1970 by its clock, `beat_at` is the same instant
    by Postgres'. silent: seconds since then."""

    name: str
    said_at: int
    unanswered_since: int
    beat_at: Any
    silent: float


class LostAnswers:
    """One process's sessions: one to say and ask, one to listen. `async with` connects and closes.

    name: this process, as long as it lives. seconds: how long a lost answer counts. most: how many
    of them are read at a start. Every method raises psycopg.Error when Postgres is away.
    """

    def __init__(self, url: str, name: str, seconds: float, most: int) -> None:
        self._url, self._name, self._seconds, self._most = url, name, seconds, most
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> "LostAnswers":
        """Connect, and begin to listen. Raises DatabaseUnavailable or psycopg.Error."""
        self._desk = await connect(self._url, autocommit=True)
        try:
            # IF NOT EXISTS is not safe against two creators at once; the lock makes it so.
            async with self._desk.transaction():
                await self._desk.execute("SELECT pg_advisory_xact_lock(7301)")
                await self._desk.execute(_DDL)
            row = await (await self._desk.execute(SESSION)).fetchone()
            assert row is not None  # a session sees itself
            self._session = (row["pid"], row["backend_start"])
            self._ear = await connect(self._url, autocommit=True)
            await self._ear.execute(f"LISTEN {_CHANNEL}".encode())
        except BaseException:
            await self._desk.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._ear.close()
        await self._desk.close()

    async def heard(self) -> AsyncIterator[Told]:
        """What any process tells from now on, this one included."""
        async for note in self._ear.notifies():
            request, _, command_id = note.payload.partition(" ")
            yield Told(request, command_id)

    async def known(self) -> list[Told]:
        """What was told and counts still, the oldest first."""
        async with self._turn:
            cursor = await self._desk.execute(_KNOWN, (self._seconds, self._most))
            rows = await cursor.fetchall()
        return [Told(row["request"], row["command_id"], row["age"]) for row in reversed(rows)]

    async def tell(
        self, lost: Sequence[Told], again: Iterable[str], answered: Iterable[str]
    ) -> None:
        """Answers were lost; again: those to commands that were told before, if they still are.

        answered: commands that nobody claims any more.
        """
        async with self._turn, self._desk.transaction():
            await self._desk.execute(
                "DELETE FROM lost_answers WHERE command_id = ANY(%s)", (list(answered),)
            )
            await self._desk.execute(_TELL, _columns(lost))
            await self._desk.execute(_TELL_AGAIN, (list(again),))

    async def claim(self, request: str) -> str | None:
        """The command, of those that count, that fewest are at; None when there is none."""
        async with self._turn, self._desk.transaction():
            # So that of two that claim at once, the second sees what the first has taken.
            await self._desk.execute("SELECT pg_advisory_xact_lock(7302, hashtext(%s))", (request,))
            row = await (await self._desk.execute(_CLAIM, (request, self._seconds))).fetchone()
        return None if row is None else str(row["command_id"])

    async def beat(self, said_at: int, unanswered_since: int) -> list[Dead]:
        """Say that this process is there, forget what no longer counts; who isn't there any more.

        said_at, unanswered_since: as `Dead` has them.
        """
        asked = {"name": self._name, "session_began": self._session[1]}
        asked |= {"grace": GRACE_SECONDS, "ttl": TTL_SECONDS}
        async with self._turn:
            row = (self._name, *self._session, said_at, unanswered_since)
            await self._desk.execute(_BEAT, row)
            await self._desk.execute(
                "DELETE FROM lost_answers WHERE lost_at < now() - make_interval(secs => %s)",
                (self._seconds,),
            )
            found = await (await self._desk.execute(_DEAD.encode(), asked)).fetchall()
        return [Dead(**row) for row in found]

    async def inherit(self, dead: Dead, lost: Sequence[Told]) -> bool:
        """Tell what a dead process left, and forget it; False when another process has."""
        async with self._turn, self._desk.transaction():
            taken = await self._desk.execute(
                "DELETE FROM api_processes WHERE name = %s AND beat_at = %s",
                (dead.name, dead.beat_at),
            )
            if taken.rowcount:
                await self._desk.execute(_TELL, _columns(lost))
        return bool(taken.rowcount)

    async def leave(self) -> None:
        """This process ends, and leaves nothing unanswered."""
        async with self._turn:
            await self._desk.execute("DELETE FROM api_processes WHERE name = %s", (self._name,))


def _columns(lost: Sequence[Told]) -> tuple[list[str], list[str], list[float]]:
    return (
        [one.command_id for one in lost],
        [one.request for one in lost],
        [one.age for one in lost],
    )
