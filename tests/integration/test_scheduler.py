"""The scheduler on real Postgres: what is due is sent once, however far behind the deciders are."""

import asyncio
from collections.abc import Sequence

import psycopg

from commands.approvals.check_in_state import ExpireCheckIn
from infra.clock import ManualClock
from infra.config import Settings
from infra.ids import new_id
from infra.postgres import connect
from streams.bus import CommandRequest, Encoded
from streams.runtime import codec
from streams.scheduler import RESEND_MICROS, Scheduler
from streams.store import create_tables

PATIENCE = 60.0
COUNT = 1_200


class SilentBus:
    """A bus whose deciders never come to anything: what they are sent stays due."""

    def __init__(self) -> None:
        self.sent: list[CommandRequest] = []
        self._more = asyncio.Condition()

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        async with self._more:
            self.sent += requests
            self._more.notify_all()

    async def until(self, count: int) -> None:
        """Return when so many were sent."""
        async with asyncio.timeout(PATIENCE), self._more:
            await self._more.wait_for(lambda: len(self.sent) >= count)


async def set_timers(connection: psycopg.AsyncConnection, count: int, due_at: int) -> None:
    """Timers of check-ins of their own, all due then."""
    command = codec().encode(ExpireCheckIn("room_1", "agt_1", due_at))
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO timers VALUES ('ten_1', %s, 'timeout', 0, %s, %s)",
            [(f"approvals.check_in/{new_id('ci')}", due_at, command) for _ in range(count)],
        )


async def test_what_is_due_is_sent_once_while_the_deciders_are_behind(settings: Settings) -> None:
    clock, bus = ManualClock(), SilentBus()
    connection = await connect(settings.database_url, autocommit=True)
    await create_tables(connection)
    await set_timers(connection, COUNT, clock.now())
    scheduler = Scheduler(
        database=settings.database_url,
        bus=bus,  # type: ignore[arg-type]  # one that hears and does nothing
        codec=codec(),
        clock=clock,
        owner=new_id("test"),
    )
    running = asyncio.create_task(scheduler.run())
    try:
        await bus.until(COUNT)
        clock.advance(RESEND_MICROS / 1e6 / 2)
        await set_timers(connection, 1, clock.now())
        await bus.until(COUNT + 1)
        assert len({request.command_id for request in bus.sent}) == len(bus.sent) == COUNT + 1
        # As they were kept, which a decider reads as what was planned.
        sent = bus.sent[0].command
        assert isinstance(sent, Encoded)
        assert (sent.stream, sent.tag) == ("approvals.check_in", "approvals.expire_check_in.v1")
        assert isinstance(codec().decode(sent.data), ExpireCheckIn)
        # What was lost all the same comes again: the same commands, which count once.
        clock.advance(RESEND_MICROS / 1e6)
        await bus.until(2 * (COUNT + 1))
        assert len({request.command_id for request in bus.sent}) == COUNT + 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await connection.close()
