"""The eraser of key material: what a deleted key or an ended upload leaves in the object store.

A worker that reads a deletion erases the key as soon as its jobs are done. Here it is made sure:
the eraser waits for those jobs, but no longer than GRACE_SECONDS, erases what is left whether or
not a worker runs, and records the receipt by a command. A crash anywhere repeats the whole; what
is gone stays gone, and there is one receipt of each deletion.
"""

import asyncio
from collections.abc import Collection
from typing import Any

from commands.fhe.evaluation_key import RecordKeyErased
from infra.clock import Clock
from infra.ids import command_id
from infra.objects import Objects
from infra.postgres import Reads
from projections.fhe.fhe_jobs import QUEUED_OF_KEY
from schemas.codec import Codec
from schemas.envelope import SYSTEM, Envelope
from schemas.fhe.evaluation_key import EvaluationKeyDeleted
from schemas.fhe.key_upload import KeyUploadAbandoned, KeyUploadCompleted
from streams.bus import CommandBus, CommandRequest
from streams.following import Follower, of_types, one_by_one

GROUP = "streams.fhe.erasing.v1"
GRACE_SECONDS = 30
_LOOK_SECONDS = 0.5
_PURPOSE = "key-erasure"


class Erasing:
    """Erases until cancelled; any number of processes may do so at once."""

    def __init__(
        self,
        *,
        bootstrap: str,
        codec: Codec,
        bus: CommandBus,
        reads: Reads,
        objects: Objects,
        clock: Clock,
        group: str = GROUP,
    ) -> None:
        self._bus, self._reads, self._objects, self._clock = bus, reads, objects, clock
        self._follower = Follower(
            bootstrap=bootstrap,
            group=group,
            codec=codec,
            wants=of_types(EvaluationKeyDeleted, KeyUploadCompleted, KeyUploadAbandoned),
            handle=one_by_one(self._handle),
        )

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        await self._follower.run()

    async def _handle(self, envelope: Envelope, event: Any) -> None:
        match event:
            case EvaluationKeyDeleted():
                await self._erase_key(envelope, event)
            case KeyUploadCompleted():
                await self._erase_upload(envelope, event.kept)
            case KeyUploadAbandoned():
                await self._erase_upload(envelope, ())

    async def _erase_key(self, envelope: Envelope, deleted: EvaluationKeyDeleted) -> None:
        last = deleted.deleted_at + GRACE_SECONDS * 1_000_000
        asked = QUEUED_OF_KEY, envelope.tenant, deleted.key_id
        # Jobs end on other streams: they have to be asked for.
        while self._clock.now() < last and await self._reads.one(*asked):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        for name in deleted.objects:
            await self._objects.delete(name)
        await self._bus.post(
            CommandRequest(
                tenant=envelope.tenant,
                stream_id=deleted.key_id,
                command=RecordKeyErased(deleted.deleted_at, len(deleted.objects)),
                actor=SYSTEM,
                command_id=command_id(envelope.tenant, envelope.id, _PURPOSE),
                fingerprint=_PURPOSE,
                correlation_id=envelope.correlation_id,
            )
        )

    async def _erase_upload(self, envelope: Envelope, kept: Collection[str]) -> None:
        """Everything that an upload has stored but what became a key's."""
        for folder in ("uploads", "keys"):
            prefix = f"fhe/{envelope.tenant}/{folder}/{envelope.stream_id}"
            for name in await self._objects.names(prefix):
                if name not in kept:
                    await self._objects.delete(name)
