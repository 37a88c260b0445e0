"""What every process of Weir shares: the codec of all events and commands, and the deciders."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import cache

from commands import DECIDERS, commands
from infra.clickhouse import AnalyticsUnavailable, ClickHouse
from infra.clock import SYSTEM_CLOCK
from infra.config import Settings
from infra.ids import Signer
from infra.objects import Objects
from projections import CLICKHOUSE_VIEWS
from projections.clickhouse import tables_by_topic
from schemas import EVENTS
from schemas.codec import Codec, load_schemas
from streams.bus import KafkaCommandBus
from streams.deciding import Registry
from streams.person_keys import PersonKeys

logger = logging.getLogger(__name__)


@cache
def codec() -> Codec:
    """The codec of every event and command, from the committed schemas."""
    return Codec([*EVENTS, *commands()], load_schemas())


@cache
def registry() -> Registry:
    """Every decider."""
    return Registry(DECIDERS)


def command_bus(settings: Settings) -> KafkaCommandBus:
    """A bus on the configured log; start and stop it."""
    return KafkaCommandBus(
        settings.kafka_bootstrap_servers, codec(), registry().streams, SYSTEM_CLOCK
    )


def person_keys(settings: Settings) -> PersonKeys:
    """The keys of persons in the configured object store; no connection is made yet."""
    return PersonKeys(Objects(settings.object_store_url), Signer(settings.secret_key))


class _Shared:
    """An engine and how many roles of this process use it."""

    def __init__(self, engine: ClickHouse) -> None:
        self.engine, self.users = engine, 0


_engines: dict[str, _Shared] = {}
_engines_lock = asyncio.Lock()


@contextlib.asynccontextmanager
async def clickhouse(settings: Settings) -> AsyncIterator[ClickHouse]:
    """This process's ClickHouse, started: roles that run side by side share it, since chDB allows
    one engine per process. The last one to leave stops it.

    A server that does not answer yet is asked again by whoever queries. Raises
    AnalyticsUnavailable for an engine inside the process."""
    url = settings.clickhouse_url
    async with _engines_lock:
        if url not in _engines:
            engine = ClickHouse(url, tables=tables_by_topic(CLICKHOUSE_VIEWS))
            try:
                await engine.start()
            except AnalyticsUnavailable as error:
                if engine.embedded:
                    await engine.stop()
                    raise
                logger.warning("ClickHouse does not answer yet: %s", error)
            except BaseException:
                await engine.stop()
                raise
            _engines[url] = _Shared(engine)
        shared = _engines[url]
        shared.users += 1
    try:
        yield shared.engine
    finally:
        async with _engines_lock:
            shared.users -= 1
            if not shared.users:
                del _engines[url]
                await shared.engine.stop()
