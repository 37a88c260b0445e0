"""The fan-out: an event of a tenant triggers the webhooks that are subscribed to its type.

For each batch of `events`, in this order: the subscriptions of the tenants in it are looked up;
each that an event matches is triggered by a command; the offsets are committed. A crash anywhere
repeats the batch, and the decider, which knows how far each subscription is, triggers none twice. A
subscription that somebody was told of is in the table before anything that was decided later is
read here.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from commands.platform.webhook_endpoint import body_of
from commands.platform.webhook_subscription import TriggerWebhook
from infra.ids import command_id
from infra.postgres import Reads, Row
from projections.platform.webhook_subscriptions import OF_TENANTS
from schemas.codec import Codec
from schemas.envelope import SYSTEM
from schemas.instants import iso
from schemas.platform.announcements import ANNOUNCEMENTS, Announcement, selects
from streams.bus import CommandRequest, KafkaCommandBus
from streams.following import Followed, Follower, of_types
from streams.platform.fan_out import fan_out

GROUP = "streams.platform.announcements.v1"
_ROWS = {row.event: row for row in ANNOUNCEMENTS}
_PURPOSE = "announcement"


def told_of(one: Followed) -> dict[str, Any]:
    """What a webhook tells of an event, as JSON values."""
    row = _ROWS[type(one.event)]
    fields: dict[str, Any] = {row.id: one.envelope.stream_id}
    for path in row.told:
        name, value = path.rpartition(".")[2], attrgetter(path)(one.event)
        fields[name] = iso(value) if name.endswith("_at") else msgspec.to_builtins(value)
    return fields


def announcements(events: Iterable[Followed], subscriptions: Sequence[Row]) -> list[CommandRequest]:
    """The commands that events set off, in the events' order. Pure."""
    of_tenant: dict[str, list[Row]] = {}
    for subscription in subscriptions:
        of_tenant.setdefault(subscription["tenant"], []).append(subscription)
    found = []
    for one in events:
        row = _ROWS[type(one.event)]
        for subscription in of_tenant.get(one.envelope.tenant, ()):
            made_before = subscription["created_at"] <= one.envelope.time
            if made_before and selects(subscription["event_types"], row.type):
                found.append(_trigger(subscription["id"], one, row))
    return found


def _trigger(subscription_id: str, one: Followed, row: Announcement) -> CommandRequest:
    envelope = one.envelope
    return CommandRequest(
        tenant=envelope.tenant,
        stream_id=subscription_id,
        command=TriggerWebhook(
            event_id=envelope.id,
            event_type=row.type,
            body=body_of(row.type, envelope.time, told_of(one)),
            partition=one.partition,
            offset=one.offset,
        ),
        actor=SYSTEM,
        command_id=command_id(envelope.tenant, f"{subscription_id}\0{envelope.id}", _PURPOSE),
        fingerprint=_PURPOSE,
        correlation_id=envelope.correlation_id,
    )


class Announcing:
    """Triggers webhooks until cancelled; any number of processes may do so at once."""

    def __init__(
        self,
        *,
        bootstrap: str,
        codec: Codec,
        bus: KafkaCommandBus,
        reads: Reads,
        group: str = GROUP,
    ) -> None:
        self._bus, self._reads = bus, reads
        self._follower = Follower(
            bootstrap=bootstrap,
            group=group,
            codec=codec,
            wants=of_types(*_ROWS),
            handle=self._handle,
        )

    async def run(self) -> None:
        """Follow the log; what goes wrong outside is waited out."""
        await self._follower.run()

    async def _handle(self, batch: Sequence[Followed]) -> None:
        tenants = sorted({one.envelope.tenant for one in batch})
        subscriptions = await self._reads.all(OF_TENANTS, tenants)
        await fan_out(self._bus, announcements(batch, subscriptions))
