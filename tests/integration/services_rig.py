"""What an API process serves from, on the session's servers and in the process of the test."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator

from api.credentials import CredentialStore
from api.identity.store import PostgresCredentials
from api.live import LiveHub
from api.services import Services
from infra.config import Settings
from infra.ids import Signer, new_id
from infra.kafka import consumer
from infra.objects import Objects
from infra.postgres import Reads
from streams.bus import CommandBus
from streams.runtime import codec
from tests.api.memory import MemoryAnalytics


@contextlib.asynccontextmanager
async def services_on(
    settings: Settings, bus: CommandBus, credentials: CredentialStore | None = None
) -> AsyncIterator[Services]:
    """Real database, log and object store, no analytics, no rate limit; whoever decides.

    credentials: those of the database unless given.
    """
    reads = Reads(settings.database_url)
    live = LiveHub(lambda: consumer(settings.kafka_bootstrap_servers, new_id("test")), codec())
    async with contextlib.AsyncExitStack() as stack:
        await reads.start()
        stack.push_async_callback(reads.stop)
        await live.start()
        stack.push_async_callback(live.stop)
        yield Services(
            settings=dataclasses.replace(settings, rate_limit_per_minute=0),
            signer=Signer(settings.secret_key),
            bus=bus,
            reads=reads,
            credentials=credentials or PostgresCredentials(reads),
            analytics=MemoryAnalytics(),
            live=live,
            objects=Objects(settings.object_store_url),
        )
