"""What every process of Weir shares: the codec of all events and commands, and the deciders."""

from functools import cache

from commands import DECIDERS, commands
from infra.clock import SYSTEM_CLOCK
from infra.config import Settings
from schemas import EVENTS
from schemas.codec import Codec, load_schemas
from streams.bus import KafkaCommandBus
from streams.deciding import Registry


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
