"""The commands of a fan-out go onto the log, however many one batch of events has set off."""

from collections.abc import Sequence

from infra.failpoints import failpoint
from streams.bus import CommandRequest, KafkaCommandBus

# The log takes only so much at once.
_POST_MAX = 500


async def fan_out(bus: KafkaCommandBus, requests: Sequence[CommandRequest]) -> None:
    """Post the commands, in order. Raises LogUnavailable; then some may be on the log."""
    for first in range(0, len(requests), _POST_MAX):
        await bus.post_many(requests[first : first + _POST_MAX])
        failpoint("fan_out.posted")
