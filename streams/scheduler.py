"""The scheduler: sends the command of every timer that is due.

Timers are rows that the decider loop writes with the events that set or clear them, so they survive
whatever the scheduler does not. A timer's command has an id made of the timer and its due time, so
that sent twice it counts once: the scheduler needs no memory, and what it remembers of what it sent
only saves traffic. The row goes when the decider has handled the command. One scheduler at a time
is enough (a lease); two would change nothing.
"""

import asyncio
import logging
from typing import Any

import psycopg

from infra.clock import Clock
from infra.failpoints import failpoint
from infra.ids import command_id
from infra.kafka import LogUnavailable
from infra.leases import Leases
from infra.postgres import DatabaseUnavailable, Reads
from schemas.codec import Codec
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest, Encoded, KafkaCommandBus

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
# While the deciders are behind, what they have been sent is read again with each poll.
POLL_BEHIND_SECONDS = 1.0
BATCH_MAX = 5000
_POST_MAX = 500  # at once, so that the loops beside this one are not held up
# What Kafka has acknowledged is not lost: sending it again soon would only double what the deciders
# have to do when they are behind.
RESEND_MICROS = 60_000_000
# Shorter than other loops', for a frozen one: two at once are harmless, and timers that nobody
# fires are late.
LEASE_SECONDS = 1.5

_DUE = (
    "SELECT tenant, stream, name, due_at, command FROM timers "
    "WHERE due_at <= %s ORDER BY due_at LIMIT %s"
)


def timer_command_id(tenant: str, stream: str, name: str, due_at: int) -> str:
    """The id of the command that a timer sends: the same timer and time, the same id."""
    return command_id(tenant, f"{stream}\0{name}\0{due_at}", scope="timer")


class Scheduler:
    """Fires due timers while it holds the scheduler's lease."""

    def __init__(
        self, *, database: str, bus: KafkaCommandBus, codec: Codec, clock: Clock, owner: str
    ) -> None:
        self._reads = Reads(database, size=1)
        self._bus, self._codec, self._clock = bus, codec, clock
        self._leases = Leases(database, "scheduler", 1, owner, ttl=LEASE_SECONDS)
        self._sent: dict[tuple[str, str, str, int], int] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        await self._reads.start()
        await self._leases.start()
        try:
            while True:
                try:
                    if self._leases.held and await self.fire() == BATCH_MAX:
                        continue
                except (DatabaseUnavailable, LogUnavailable, psycopg.Error) as error:
                    logger.warning("timers cannot be fired, trying again: %s", error)
                behind = len(self._sent) >= _POST_MAX
                await asyncio.sleep(POLL_BEHIND_SECONDS if behind else POLL_SECONDS)
        finally:
            await self._leases.stop()
            await self._reads.stop()

    async def fire(self) -> int:
        """Send what is due and was not sent lately; returns how many were sent."""
        now = self._clock.now()
        rows = await self._reads.all(_DUE, now, BATCH_MAX + len(self._sent))
        keys = {(row["tenant"], row["stream"], row["name"], row["due_at"]) for row in rows}
        # What is gone from the table was handled; what is still there after a while is sent again.
        self._sent = {
            key: at for key, at in self._sent.items() if key in keys and now - at < RESEND_MICROS
        }
        due = [row for row in rows if _key(row) not in self._sent][:BATCH_MAX]
        for first in range(0, len(due), _POST_MAX):
            part = due[first : first + _POST_MAX]
            await self._bus.post_many([self._request(row) for row in part])
            failpoint("scheduler.posted")
            self._sent |= {_key(row): now for row in part}
        return len(due)

    def _request(self, row: dict[str, Any]) -> CommandRequest:
        tenant, stream, name, due_at = _key(row)
        kind, _, id = stream.partition("/")
        return CommandRequest(
            tenant=tenant,
            stream_id=id,
            command=Encoded(kind, self._codec.tag(row["command"]), row["command"]),
            actor=SYSTEM,
            command_id=timer_command_id(tenant, stream, name, due_at),
            fingerprint="timer",
            timer=f"{name}@{due_at}",
        )


def _key(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row["tenant"], row["stream"], row["name"], row["due_at"]
