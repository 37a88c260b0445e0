"""Webhooks: `/api/v1/webhooks`, a tenant's events told to URLs of its own. The secret that signs
them is shown once."""

from functools import partial
from typing import Annotated, Any

from msgspec import Meta, Struct

from api.cursors import newest_page, read_cursor, write_cursor
from api.platform.webhook_deliveries import DeliveryItem, Status, delivery_page, send_again
from api.platform.webhook_secrets import RotateSecretBody, rotated
from api.platform.webhook_urls import check_url
from api.problems import FHE, not_found
from api.roles import BUILDERS, READERS
from api.routing import Answer, Call, Route, Who, answer_of
from commands.platform.webhook_endpoint import EnableWebhookEndpoint
from commands.platform.webhook_subscription import (
    ReviseWebhook,
    SendTestWebhook,
    SubscribeWebhook,
    UnsubscribeWebhook,
    WebhookSubscriptionAnswered,
)
from projections.platform import webhook_subscriptions
from schemas.instants import iso, iso_or_none
from schemas.platform.announcements import selectable
from schemas.types import Text

_PATH = "/api/v1/webhooks"
_ONE = f"{_PATH}/{{webhook_id}}"

Url = Annotated[Text, Meta(min_length=1, max_length=2000)]
Description = Annotated[Text, Meta(max_length=200)]
EventTypes = Annotated[
    list[Annotated[Text, Meta(max_length=64)]],
    Meta(min_length=1, max_length=50, description=f"of {', '.join(selectable())}"),
]
Limit = Annotated[int, Meta(ge=1, le=100)]
Cursor = Annotated[Text, Meta(max_length=200)]


class WebhookBody(Struct, frozen=True):
    """What to tell, and where. `job.*` names every type of jobs, `*` every type that there is."""

    url: Url
    event_types: EventTypes
    description: Description = ""


class ReviseWebhookBody(Struct, frozen=True):
    """What to change; what waits goes to a new `url`, too."""

    url: Url | None = None
    event_types: EventTypes | None = None
    description: Description | None = None


class PageQuery(Struct, frozen=True):
    """Which page of a list."""

    limit: Limit = 20
    cursor: Cursor = ""


class DeliveriesQuery(Struct, frozen=True):
    """Which deliveries of the webhook."""

    status: Status | None = None
    limit: Limit = 20
    cursor: Cursor = ""


class WebhookItem(Struct, frozen=True):
    """A webhook. status: `active`, or `disabled` when its endpoint answered 410 or has failed for
    days; `status_reason` says which."""

    webhook_id: str
    url: str
    event_types: list[str]
    description: str
    status: str
    status_reason: str
    created_at: str
    created_by: str
    last_triggered_at: str | None


class CreatedWebhook(WebhookItem, frozen=True):
    """A new webhook, and what it is signed with, which is never shown again."""

    secret: str


class RotatedSecret(Struct, frozen=True):
    """What a webhook is signed with from now on, never shown again.

    previous_valid_until: when the last of the secrets before stops signing; null when none signs.
    """

    webhook_id: str
    secret: str
    previous_valid_until: str | None


class WebhookPage(Struct, frozen=True):
    """A page of webhooks, newest first, and where the next one begins."""

    data: list[WebhookItem]
    next_cursor: str | None
    has_more: bool


class TestSent(Struct, frozen=True):
    """A test event is on its way. delivery_id: its `webhook-id`."""

    delivery_id: str


class Delivery(DeliveryItem, frozen=True):
    """An event on its way to the webhook; `delivery_id` is the event's id, its `webhook-id`."""

    delivery_id: str


class DeliveryPage(Struct, frozen=True):
    """A page of deliveries, newest first, and where the next one begins."""

    data: list[Delivery]
    next_cursor: str | None
    has_more: bool


async def create(call: Call[WebhookBody, None]) -> CreatedWebhook:
    """Have events told to a URL; the secret is shown here only."""
    body = call.body
    check_url(body.url, call.services.settings.egress_allow, field="url")
    webhook_id = "wh_" + call.command_id.removeprefix("cmd_")
    command = SubscribeWebhook(body.url, body.event_types, body.description)
    await call.send(webhook_id, command)
    call.headers["cache-control"] = "no-store"
    row = await _row(call, webhook_id)
    return CreatedWebhook(**_item(row), secret=call.services.signer.webhook_secret(call.command_id))


async def list_webhooks(call: Call[None, PageQuery]) -> WebhookPage:
    """The tenant's webhooks, newest first."""
    rows, cursor = await newest_page(call, webhook_subscriptions.PAGE, "id")
    return WebhookPage([WebhookItem(**_item(row)) for row in rows], cursor, cursor is not None)


async def get_webhook(call: Call[None, None]) -> WebhookItem:
    """One webhook."""
    return WebhookItem(**_item(await _row(call)))


async def revise(call: Call[ReviseWebhookBody, None]) -> WebhookItem:
    """Change where it goes, what it tells, or what it is called."""
    body, webhook_id = call.body, (await _row(call))["id"]
    if body.url is not None:
        check_url(body.url, call.services.settings.egress_allow, field="url")
    await call.send(webhook_id, ReviseWebhook(body.url, body.event_types, body.description))
    return WebhookItem(**_item(await _row(call)))


async def delete(call: Call[None, None]) -> None:
    """Tell it nothing more; what waits is dropped. Deleting it again changes nothing."""
    await call.send(call.path["webhook_id"], UnsubscribeWebhook())


async def enable(call: Call[None, None]) -> WebhookItem:
    """Send to a disabled webhook again; what was dropped can be redelivered."""
    row = await _row(call)
    await call.send(row["id"], EnableWebhookEndpoint())
    return WebhookItem(**_item(row | {"status": "active", "reason": ""}))


async def rotate_secret(call: Call[RotateSecretBody, None]) -> RotatedSecret:
    """Sign with a new secret; a repeat of the request shows it again."""
    webhook_id = (await _row(call))["id"]
    return RotatedSecret(webhook_id, *await rotated(call, webhook_id))


async def send_test(call: Call[None, None]) -> TestSent:
    """Send an event of the type `webhook.test`, behind what waits."""
    reply = await call.send((await _row(call))["id"], SendTestWebhook())
    return TestSent(answer_of(reply, WebhookSubscriptionAnswered).event_id)


async def list_deliveries(call: Call[None, DeliveriesQuery]) -> Any:
    """What was sent to it and what became of that, newest first."""
    webhook_id, query = (await _row(call))["id"], call.query
    items, last = await delivery_page(
        call, webhook_id, query.status, read_cursor(query.cursor), query.limit
    )
    return {
        "data": [_delivery(item) for item in items],
        "next_cursor": write_cursor(*last) if last else None,
        "has_more": last is not None,
    }


async def redeliver(call: Call[None, None]) -> Any:
    """Send a settled delivery again, behind what waits, under the same `webhook-id`."""
    webhook_id = (await _row(call))["id"]
    item = await send_again(call, webhook_id, call.path["delivery_id"])
    return Answer(_delivery(item), status=202)


async def _row(call: Call[Any, Any], webhook_id: str = "") -> dict[str, Any]:
    row = await call.services.reads.one(
        webhook_subscriptions.BY_ID, call.tenant, webhook_id or call.path["webhook_id"]
    )
    if row is None:
        not_found("No such webhook")
    return row


def _item(row: dict[str, Any]) -> dict[str, Any]:
    triggered_at = row["triggered_at"]
    return {
        "webhook_id": row["id"],
        "url": row["url"],
        "event_types": row["event_types"],
        "description": row["description"],
        "status": row["status"],
        "status_reason": row["reason"],
        "created_at": iso(row["created_at"]),
        "created_by": row["created_by"],
        "last_triggered_at": iso_or_none(triggered_at),
    }


def _delivery(item: dict[str, Any]) -> dict[str, Any]:
    return {"delivery_id": item["event_id"], **item}


_route = partial(Route, dialect=FHE, who=Who.SESSION_OR_KEY, tags=("webhooks",), max_body=16 * 1024)
_read, _write = partial(_route, roles=READERS), partial(_route, roles=BUILDERS)

ROUTES = [
    _write(
        "POST",
        _PATH,
        create,
        summary="Create a webhook; its secret is shown once",
        body=WebhookBody,
        response=CreatedWebhook,
        status=201,
        refusals=(400, 409),
    ),
    _read(
        "GET",
        _PATH,
        list_webhooks,
        summary="List webhooks",
        query=PageQuery,
        response=WebhookPage,
        refusals=(400,),
    ),
    _read("GET", _ONE, get_webhook, summary="Show a webhook", response=WebhookItem),
    _write(
        "PATCH",
        _ONE,
        revise,
        summary="Change a webhook",
        body=ReviseWebhookBody,
        response=WebhookItem,
        refusals=(400,),
    ),
    _write("DELETE", _ONE, delete, summary="Delete a webhook", status=204),
    _write(
        "POST",
        f"{_ONE}/enable",
        enable,
        summary="Send to a disabled webhook again",
        response=WebhookItem,
    ),
    _write(
        "POST",
        f"{_ONE}/rotate-secret",
        rotate_secret,
        summary="Rotate the secret; the one before signs too, for a while",
        body=RotateSecretBody,
        response=RotatedSecret,
    ),
    _write(
        "POST",
        f"{_ONE}/test",
        send_test,
        summary="Send a test event",
        response=TestSent,
        status=202,
        refusals=(409,),
    ),
    _read(
        "GET",
        f"{_ONE}/deliveries",
        list_deliveries,
        summary="List what was sent, with attempts and answers",
        query=DeliveriesQuery,
        response=DeliveryPage,
        refusals=(400,),
    ),
    _write(
        "POST",
        f"{_ONE}/deliveries/{{delivery_id}}/redeliver",
        redeliver,
        summary="Send a settled delivery again",
        response=Delivery,
        status=202,
        refusals=(409,),
    ),
]
