"""Erases what a trial leaves behind: its evaluation keys, and every byte of its computations.

It comes hours after the trial's key has stopped, when no job can be under way any more. A crash
anywhere repeats the whole, and each step may be repeated.
"""

from typing import Any

from commands.fhe.evaluation_key import DeleteEvaluationKey
from infra.ids import command_id
from infra.objects import Objects
from infra.postgres import Reads
from projections.fhe import fhe_keys
from schemas.codec import Codec
from schemas.envelope import SYSTEM, Envelope
from schemas.tenancy.trial import TrialEnded
from streams.bus import CommandBus, CommandRequest
from streams.following import Follower, of_types, one_by_one

GROUP = "streams.tenancy.trials.v1"
_KEYS_MAX = 1_000


class Trials:
    """Follows the ends of trials until cancelled; any number of processes may do so at once."""

    def __init__(
        self, *, bootstrap: str, codec: Codec, bus: CommandBus, reads: Reads, objects: Objects
    ) -> None:
        self._bus, self._reads, self._objects = bus, reads, objects
        self._follower = Follower(
            bootstrap=bootstrap,
            group=GROUP,
            codec=codec,
            wants=of_types(TrialEnded),
            handle=one_by_one(self.handle),
        )

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        await self._follower.run()

    async def handle(self, envelope: Envelope, ended: Any) -> None:
        """Erase what the tenant of this event has. Raises what the follower waits out."""
        tenant = envelope.tenant
        rows = await self._reads.all(fhe_keys.PAGE, tenant, 2**63 - 1, "", _KEYS_MAX)
        for row in rows:
            await self._bus.post(
                CommandRequest(
                    tenant=tenant,
                    stream_id=row["key_id"],
                    command=DeleteEvaluationKey(),
                    actor=SYSTEM,
                    command_id=command_id(tenant, row["key_id"], "trial-ended"),
                    fingerprint="trial-ended",
                    correlation_id=envelope.correlation_id,
                )
            )
        for name in await self._objects.names(f"fhe/{tenant}"):
            await self._objects.delete(name)
