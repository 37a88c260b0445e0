"""When API keys were used: noted in memory, put on the log at most once in ten minutes for each.

A key's `last_used_at` is therefore up to ten minutes (and one look at the notes) behind, and what a
process has noted and not yet told when it dies is lost: it is for people who ask whether a key may
go, not for audits, which have every write.
"""

import asyncio
import logging

from api.exchange import Exchange
from commands.identity.api_key import USE_MICROS, RecordApiKeyUse
from infra.clock import Clock
from infra.ids import new_id
from infra.kafka import LogUnavailable
from schemas.envelope import SYSTEM
from streams.bus import CommandBus, CommandRequest

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 30.0


class KeyUses:
    """The notes of one API process: an observer of requests, all on one event loop."""

    def __init__(self, bus: CommandBus, clock: Clock) -> None:
        self._bus, self._clock = bus, clock
        self._noted: dict[str, tuple[str, int]] = {}  # by key: its tenant, and when
        self._told: dict[str, int] = {}

    def __call__(self, exchange: Exchange, seconds: float) -> None:
        """Note the key that a request came with, if it was a good one."""
        principal = exchange.principal
        if principal is not None and principal.actor.kind == "api_key":
            self._noted[principal.key_id] = (principal.tenant, self._clock.now())

    async def run(self) -> None:
        """Tell the log every now and then, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Tell of the keys that were not told of for ten minutes; forget the other notes."""
        oldest = self._clock.now() - USE_MICROS
        self._told = {key_id: at for key_id, at in self._told.items() if at > oldest}
        noted, self._noted = self._noted, {}
        fresh = {key_id: use for key_id, use in noted.items() if key_id not in self._told}
        if not fresh:
            return
        requests = [
            CommandRequest(
                tenant=tenant,
                stream_id=key_id,
                command=RecordApiKeyUse(used_at),
                actor=SYSTEM,
                command_id=new_id("cmd"),
            )
            for key_id, (tenant, used_at) in fresh.items()
        ]
        try:
            await self._bus.post_many(requests)
        except LogUnavailable:
            logger.warning("the use of keys is not told: the log is away")
            return
        self._told |= {key_id: used_at for key_id, (_, used_at) in fresh.items()}
