"""Events of `platform.webhook_subscription`: which events of a tenant an endpoint is told of.

The endpoint itself, under the same id, is in `schemas/platform/webhook.py`.
"""

from msgspec import Struct

from schemas.types import Count, Micros, Text


class WebhookSubscribed(Struct, frozen=True, tag="platform.webhook_subscribed.v1"):
    """An endpoint is told of these types of events from now on; see `announcements.py`.

    slot: which of the places that a tenant has for subscriptions this one takes, from 0.
    """

    event_types: list[Text]
    description: Text
    slot: Count
    subscribed_at: Micros


class WebhookTypesChosen(Struct, frozen=True, tag="platform.webhook_types_chosen.v1"):
    """The endpoint is told of these types of events, in place of those before."""

    event_types: list[Text]


class WebhookDescribed(Struct, frozen=True, tag="platform.webhook_described.v1"):
    """What people call the subscription."""

    description: Text


class WebhookTriggered(Struct, frozen=True, tag="platform.webhook_triggered.v1"):
    """An event matched. partition and offset: where it lies on `events`."""

    event_id: str
    event_type: Text
    partition: Count
    offset: Count
    triggered_at: Micros


class WebhookUnsubscribed(Struct, frozen=True, tag="platform.webhook_unsubscribed.v1"):
    """The endpoint is told of nothing more, and its slot is free. Final."""

    slot: Count
    unsubscribed_at: Micros


WebhookSubscriptionEvent = (
    WebhookSubscribed
    | WebhookTypesChosen
    | WebhookDescribed
    | WebhookTriggered
    | WebhookUnsubscribed
)
