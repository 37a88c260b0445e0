"""The sender of webhooks, all its parts together: the partitions of `deliveries` leased here."""

from collections.abc import Iterable, Mapping

from infra.clock import Clock
from infra.ids import Signer
from infra.kafka import Log
from infra.leases import Leases
from infra.postgres import Reads
from schemas.codec import Codec
from streams.bus import CommandBus
from streams.leased import LeasedLoops
from streams.platform.webhook_client import WebhookClient
from streams.platform.webhook_sender import PartitionSender, Places


class Webhooks:
    """Sends webhooks until cancelled; any number of processes may do so at once.

    allowed: networks that may be reached although they are not public.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        database: str,
        partitions: int,
        codec: Codec,
        clock: Clock,
        bus: CommandBus,
        signer: Signer,
        allowed: Iterable[str],
        owner: str,
    ) -> None:
        self._bootstrap, self._database = bootstrap, database
        self._codec, self._clock, self._bus = codec, clock, bus
        self._log = Log(bootstrap, f"{owner}-webhooks")
        self._reads = Reads(database)
        self._client = WebhookClient(signer, allowed, clock)
        self._places = Places()
        leases = Leases(database, "webhooks", partitions, owner)
        self._leased = LeasedLoops(leases, self._sender)

    @property
    def loops(self) -> Mapping[int, PartitionSender]:
        """The partitions run here."""
        return self._leased.loops

    async def serving(self) -> None:
        """Return once every partition leased here is sent (and the leases are settled)."""
        await self._leased.serving()

    async def run(self) -> None:
        """Send until cancelled."""
        await self._reads.start()
        try:
            await self._leased.run()
        finally:
            await self._client.stop()
            await self._log.stop()
            await self._reads.stop()

    def _sender(self, partition: int) -> PartitionSender:
        return PartitionSender(
            partition,
            bootstrap=self._bootstrap,
            database=self._database,
            codec=self._codec,
            clock=self._clock,
            log=self._log,
            bus=self._bus,
            reads=self._reads,
            client=self._client,
            places=self._places,
        )
