"""The eraser: carries out what `RequestUserErasure` asks for.

For each request on `events`, in this order:
1. the person's key is destroyed, which a command records: API processes forget it then;
2. `PersonForgotten` goes to every partition of `telemetry`;
3. once the views hold what came before that, each is blanked and verified, which a command records;
4. the erasure is completed by a command, and the request's offset committed.

Why nothing comes back: whoever fills a view lets go of the key where it reads `PersonForgotten`,
and nobody can fetch it again. A crash anywhere repeats the whole, and each step may be repeated:
the key's place is marked again, views are blank already, a step is recorded once. An erasure is
never given up.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from commands.observability.erasure import (
    CompleteUserErasure,
    RecordReadModelErased,
    RecordUserKeyDropped,
)
from infra.clickhouse import ClickHouse
from infra.clock import SYSTEM_CLOCK
from infra.failpoints import failpoint
from infra.ids import command_id, derived_id
from infra.kafka import Log, Record
from infra.postgres import Reads
from projections.clickhouse import ClickHouseView
from projections.observability.erased_rows import find_full
from projections.observability.user_erasures import BY_ID, COMPLETED_SINCE
from schemas.avro_derivation import tag_of
from schemas.codec import Codec
from schemas.envelope import SYSTEM, Envelope, Position, to_headers
from schemas.observability.erasure import PERSON_STREAM, PersonForgotten, UserErasureRequested
from streams.bus import CommandBus, CommandRequest
from streams.following import Follower, of_types, one_by_one
from streams.observability.blanking import blank_view
from streams.person_keys import PersonKeys
from streams.replay import TopicReader
from streams.telemetry import TOPIC

logger = logging.getLogger(__name__)

GROUP = "streams.observability.erasures.v1"
LONGEST_ERASURE_MS = 3_600_000
LOOK_SECONDS, LOOK_BACK_MICROS = 600.0, 86_400_000_000
_VIEW_SECONDS = 5.0


class Eraser:
    """Erases persons until cancelled; any number of processes may do so at once.

    views: all there are; those with personal columns are blanked.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        codec: Codec,
        bus: CommandBus,
        reads: Reads,
        clickhouse: ClickHouse,
        log: Log,
        person_keys: PersonKeys,
        views: Sequence[ClickHouseView],
    ) -> None:
        self._bootstrap, self._codec, self._bus, self._reads = bootstrap, codec, bus, reads
        self._clickhouse, self._log, self._person_keys = clickhouse, log, person_keys
        self._views = [view for view in views if view.personal]
        self._looks_at = 0.0
        self._follower = Follower(
            bootstrap=bootstrap,
            group=GROUP,
            codec=codec,
            wants=of_types(UserErasureRequested),
            handle=one_by_one(self._handle),
            between=self._look_now_and_then,
            longest_ms=LONGEST_ERASURE_MS,
            waits_out=(Exception,),
        )

    async def run(self) -> None:
        """Follow the log; what goes wrong is waited out."""
        await self._follower.run()

    async def _look_now_and_then(self) -> None:
        if asyncio.get_running_loop().time() >= self._looks_at:
            await self.look_again()
            self._looks_at = asyncio.get_running_loop().time() + LOOK_SECONDS

    async def _handle(self, envelope: Envelope, requested: Any) -> None:
        row = await self._reads.one(BY_ID, envelope.tenant, envelope.stream_id)
        if row is None or row["status"] != "completed":
            await self.erase(envelope, requested.key)

    async def erase(self, requested: Envelope, key: str) -> None:
        """Carry an erasure out, from whichever step on. Raises what is foreseen."""
        await self._person_keys.destroy(requested.tenant, key)
        failpoint("erasure.key_destroyed")
        await self._record(requested, RecordUserKeyDropped(), "key")
        positions = await self._announce(requested, key)
        failpoint("erasure.announced")
        for position in positions:
            while not await self._clickhouse.reached(position, _VIEW_SECONDS):
                logger.info("an erasure waits until the views have reached %s", position)
        told = [str(position) for position in positions]
        for view in self._views:
            rows = await blank_view(self._clickhouse, view, requested.tenant, key)
            failpoint("erasure.view_blanked")
            command = RecordReadModelErased(read_model=view.name, rows=rows, positions=told)
            await self._record(requested, command, view.name)
        await self._record(requested, CompleteUserErasure(), "end")

    async def look_again(self) -> None:
        """Blank what came into a view after its erasure: a process that was frozen in the midst of
        an insert writes what it had in hand when it wakes up. Raises what is foreseen."""
        since = SYSTEM_CLOCK.now() - LOOK_BACK_MICROS
        recent = await self._reads.all(COMPLETED_SINCE, since)
        if not recent:
            return
        asked = {
            "tenants": [row["tenant"] for row in recent],
            "keys": [row["key_name"] for row in recent],
        }
        for view in self._views:
            for row in await self._clickhouse.query(find_full(view), asked):
                logger.warning("%s has rows of %s again", view.name, row["sealed_for"])
                await blank_view(self._clickhouse, view, row["tenant"], row["sealed_for"])

    async def _announce(self, requested: Envelope, key: str) -> list[Position]:
        """Tell every partition that the key is gone; where that stands."""
        event = PersonForgotten(key=key)
        async with TopicReader(self._bootstrap, TOPIC, "weir-erasures") as reader:
            partitions = [place.partition for place in reader.partitions]
        records = []
        for partition in partitions:
            envelope = Envelope(
                id=derived_id("evt", requested.stream_id, str(partition)),
                type=tag_of(PersonForgotten),
                tenant=requested.tenant,
                stream=f"{PERSON_STREAM}/{key.partition('/')[0]}",
                version=0,
                time=SYSTEM_CLOCK.now(),
                actor=SYSTEM,
                correlation_id=requested.correlation_id,
                causation_id=requested.id,
            )
            value = self._codec.encode(event)
            records.append(Record(key.encode(), value, to_headers(envelope), partition))
        return await self._log.append(TOPIC, records)

    async def _record(self, requested: Envelope, command: Struct, step: str) -> None:
        await self._bus.post(
            CommandRequest(
                tenant=requested.tenant,
                stream_id=requested.stream_id,
                command=command,
                actor=SYSTEM,
                command_id=command_id(requested.tenant, requested.stream_id, f"erasure {step}"),
                fingerprint=f"erasure {step}",
                correlation_id=requested.correlation_id,
            )
        )
