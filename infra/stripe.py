"""Stripe, through its own client: what we ask it for, and what it tells us, as our structs.

Everything we send has an idempotency key that follows from a change of ours, so that it may be
repeated. The client is loaded when it is first needed, since it is large.
"""

import logging
from collections.abc import Awaitable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from infra.config import Settings
from schemas.billing.subscription import StripeInvoice, StripeSubscription

if TYPE_CHECKING:
    import stripe

logger = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT_SECONDS = 10.0
RETRIES = 1
# How a price of Stripe's says which plan of ours it is for.
LOOKUP_PREFIX = "weir_"
# What our subscriptions carry at Stripe, and their invoices with them.
TENANT, SUBSCRIPTION, CHANGE = "weir_tenant", "weir_subscription", "weir_change"
# And an invoice of ours the month that it is for.
MONTH = "weir_usage_month"
_DAYS_UNTIL_DUE = 14
_CLOCKS_DIFFER_SECONDS = 3_600
_SIGNED_SECONDS = 300


class StripeUnavailable(Exception):
    """Stripe did not answer, or not with an answer; what it did is unknown."""


class StripeRefused(Exception):
    """Stripe said no; the text is its own, for people."""


class BadStripeEvent(Exception):
    """A webhook that Stripe has not signed, or whose content is not what it documents."""


class Told(Struct, frozen=True):
    """What a webhook tells: of a subscription or an invoice of a tenant.

    event_id: Stripe's. tenant, subscription_id: from what our subscriptions carry, else empty.
    """

    event_id: str
    tenant: str
    subscription_id: str
    what: StripeSubscription | StripeInvoice


class BilledUsage(Struct, frozen=True):
    """The invoice of a month's usage, and whose it is."""

    customer_id: str
    invoice_id: str


class Stripe:
    """Stripe's API for one key. Methods raise StripeUnavailable and StripeRefused."""

    def __init__(self, settings: Settings) -> None:
        self._key, self._base = settings.stripe_api_key, settings.stripe_api_base
        self._webhook_secret = settings.stripe_webhook_secret
        self._client: stripe.StripeClient | None = None
        self._prices: dict[str, str] = {}

    @property
    def is_configured(self) -> bool:
        """Whether there is a key to ask with."""
        return bool(self._key)

    @property
    def hears(self) -> bool:
        """Whether there is a secret by which webhooks are known."""
        return bool(self._webhook_secret)

    async def subscribe(
        self, *, tenant: str, subscription_id: str, change_id: str, plan_code: str, customer_id: str
    ) -> StripeSubscription:
        """Create a subscription, and a customer if there is none. It is incomplete until paid."""
        services = self._services()
        if not customer_id:
            params: Any = {"metadata": {TENANT: tenant}}
            customer = await _asked(
                services.customers.create_async(params, _key(change_id, "customer"))
            )
            customer_id = customer.id
        params = {
            "customer": customer_id,
            "items": [{"price": await self._price(plan_code)}],
            "payment_behavior": "default_incomplete",
            "metadata": {TENANT: tenant, SUBSCRIPTION: subscription_id, CHANGE: change_id},
        }
        made = await _asked(
            services.subscriptions.create_async(params, _key(change_id, "subscription"))
        )
        return _answered(made)

    async def change_plan(
        self, *, stripe_id: str, change_id: str, plan_code: str
    ) -> StripeSubscription:
        """Go over to another plan's price; the difference is on the next invoice."""
        services = self._services()
        found = await _asked(services.subscriptions.retrieve_async(stripe_id))
        item = found["items"]["data"][0]["id"]
        params: Any = {"items": [{"id": item, "price": await self._price(plan_code)}]}
        changed = await _asked(
            services.subscriptions.update_async(stripe_id, params, _key(change_id, "plan"))
        )
        return _answered(changed)

    async def cancel(
        self, *, stripe_id: str, change_id: str, at_period_end: bool
    ) -> StripeSubscription:
        """End a subscription with the period that is paid for, or at once."""
        services = self._services()
        options = _key(change_id, "cancel")
        if at_period_end:
            params: Any = {"cancel_at_period_end": True}
            return _answered(
                await _asked(services.subscriptions.update_async(stripe_id, params, options))
            )
        return _answered(await _asked(services.subscriptions.cancel_async(stripe_id, {}, options)))

    async def bill_usage(
        self, *, tenant: str, month: str, period_start: int, period_end: int, amount_minor: int
    ) -> BilledUsage:
        """Make, fill and finalise the one invoice of a tenant's month, or find it and go on.

        amount_minor: US cents. month: its name, by which the invoice is found again; period_start
        and period_end in microseconds UTC.
        """
        customers = await self._customers(tenant)
        found = await self._usage_invoice(customers, month, period_end // 1_000_000)
        invoices, change = self._services().invoices, f"{tenant}-{month}"
        if found is None:
            params: Any = {
                "customer": customers[0],
                "currency": "usd",
                "collection_method": "send_invoice",
                "days_until_due": _DAYS_UNTIL_DUE,
                # Until it is filled, Stripe must not finalise it by itself.
                "auto_advance": False,
                "pending_invoice_items_behavior": "exclude",
                "metadata": {TENANT: tenant, MONTH: month},
            }
            made = await _asked(invoices.create_async(params, _key(change, "usage-invoice")))
            found = made.to_dict()
        if found["status"] == "draft":
            if not found["lines"]["data"]:
                params = {
                    "customer": _id(found["customer"]),
                    "invoice": found["id"],
                    "amount": amount_minor,
                    "currency": "usd",
                    "description": f"Encrypted computation, {month}",
                    "period": {
                        "start": period_start // 1_000_000,
                        "end": period_end // 1_000_000,
                    },
                }
                items = self._services().invoice_items
                await _asked(items.create_async(params, _key(change, "usage-item")))
            options = _key(change, "usage-finalised")
            params = {"auto_advance": True}
            await _asked(invoices.finalize_invoice_async(found["id"], params, options))
        return BilledUsage(_id(found["customer"]), found["id"])

    async def _customers(self, tenant: str) -> list[str]:
        """The tenant's customers, the oldest first; one is made if there is none."""
        customers = self._services().customers
        query: Any = {"query": f"metadata['{TENANT}']:'{tenant}'", "limit": 100}
        found = (await _asked(customers.search_async(query))).data
        if found:
            return [item.id for item in sorted(found, key=lambda item: (item.created, item.id))]
        params: Any = {"metadata": {TENANT: tenant}}
        made = await _asked(customers.create_async(params, _key(tenant, "usage-customer")))
        return [made.id]

    async def _usage_invoice(
        self, customers: Sequence[str], month: str, ended_at: int
    ) -> dict[str, Any] | None:
        """The invoice that an earlier attempt has made, if any. ended_at: seconds."""
        for customer in customers:
            params: Any = {
                "customer": customer,
                "created": {"gte": ended_at - _CLOCKS_DIFFER_SECONDS},
                "limit": 100,
            }
            page = await _asked(self._services().invoices.list_async(params))
            while True:
                for invoice in page.data:
                    known: dict[str, Any] = invoice.to_dict()
                    if (known.get("metadata") or {}).get(MONTH) == month:
                        return known
                if not page.has_more:
                    break
                page = await _asked(page.next_page_async())
        return None

    async def payment_url(self, stripe_id: str) -> str | None:
        """Where the subscription's last invoice can be paid; None when there is nothing to pay."""
        params: Any = {"expand": ["latest_invoice"]}
        services = self._services()
        found = await _asked(services.subscriptions.retrieve_async(stripe_id, params))
        invoice = found.to_dict().get("latest_invoice")
        if not isinstance(invoice, dict) or invoice.get("status") != "open":
            return None
        return invoice.get("hosted_invoice_url")

    def read_event(self, payload: bytes, signature: str) -> Told | None:
        """What a webhook tells, None for what does not concern us. Raises BadStripeEvent."""
        import stripe

        try:
            event = stripe.Webhook.construct_event(
                payload, signature, self._webhook_secret, tolerance=_SIGNED_SECONDS
            ).to_dict()
        except (stripe.SignatureVerificationError, ValueError) as error:
            raise BadStripeEvent(str(error)) from None
        try:
            return _told(event)
        except (KeyError, TypeError, IndexError, msgspec.ValidationError) as error:
            raise BadStripeEvent(f"{event.get('type')}: {error!r}") from None

    async def _price(self, plan_code: str) -> str:
        known = self._prices.get(plan_code)
        if known is None:
            params: Any = {"lookup_keys": [LOOKUP_PREFIX + plan_code], "active": True}
            found = await _asked(self._services().prices.list_async(params))
            if not found.data:
                raise StripeRefused(f"Stripe has no price {LOOKUP_PREFIX}{plan_code}")
            known = self._prices[plan_code] = found.data[0].id
        return known

    def _services(self) -> Any:
        if self._client is None:
            import stripe

            self._client = stripe.StripeClient(
                self._key,
                base_addresses={"api": self._base},
                max_network_retries=RETRIES,
                http_client=stripe.HTTPXClient(timeout=TIMEOUT_SECONDS),
            )
        return self._client.v1


def _key(change_id: str, step: str) -> Any:
    return {"idempotency_key": f"{change_id}-{step}"}


async def _asked(request: Awaitable[T]) -> T:
    import stripe

    try:
        return await request
    except (stripe.APIConnectionError, stripe.APIError, stripe.RateLimitError) as error:
        raise StripeUnavailable(type(error).__name__) from error
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        # Ours to repair, and not the tenant's to read.
        logger.error("Stripe does not take our key: %s", error.code)
        raise StripeUnavailable("AuthenticationError") from error
    except stripe.StripeError as error:
        raise StripeRefused(error.user_message or type(error).__name__) from error


def _answered(found: Any) -> StripeSubscription:
    said_at = parsedate_to_datetime(found.last_response.headers["date"])
    return _subscription(found.to_dict(), int(said_at.timestamp()), "")


def _told(event: Mapping[str, Any]) -> Told | None:
    kind, content = str(event["type"]), event["data"]["object"]
    version, source = int(event["created"]), str(event["id"])
    if kind.startswith("customer.subscription."):
        marks = content.get("metadata") or {}
        what: Any = _subscription(content, version, source)
    elif kind.startswith("invoice.") and content.get("object") == "invoice" and content.get("id"):
        marks = _marks_of_invoice(content)
        what = _invoice(content, marks, version, source)
    else:
        return None
    return Told(source, marks.get(TENANT, ""), marks.get(SUBSCRIPTION, ""), what)


def _subscription(content: Mapping[str, Any], version: int, source: str) -> StripeSubscription:
    item = content["items"]["data"][0]
    lookup_key = item["price"].get("lookup_key") or ""
    ends = item.get("current_period_end") or content.get("current_period_end")
    fields = {
        "stripe_id": content["id"],
        "customer_id": _id(content["customer"]),
        "change_id": (content.get("metadata") or {}).get(CHANGE, ""),
        "plan_code": lookup_key.removeprefix(LOOKUP_PREFIX)
        if lookup_key.startswith(LOOKUP_PREFIX)
        else "",
        "status": content["status"],
        "current_period_end": None if ends is None else int(ends) * 1_000_000,
        "cancel_at_period_end": bool(content.get("cancel_at_period_end")),
        "version": version,
        "source": source,
    }
    return msgspec.convert(fields, StripeSubscription)


def _marks_of_invoice(content: Mapping[str, Any]) -> Mapping[str, str]:
    """What the invoice carries, or its subscription; older API versions have that elsewhere."""
    own: Mapping[str, str] = content.get("metadata") or {}
    if TENANT in own:
        return own
    parent = content.get("parent") or {}
    details = parent.get("subscription_details") or content.get("subscription_details") or {}
    return details.get("metadata") or {}


def _invoice(
    content: Mapping[str, Any], marks: Mapping[str, str], version: int, source: str
) -> StripeInvoice:
    fields = {
        "invoice_id": content["id"],
        "number": content.get("number") or "",
        "customer_id": _id(content["customer"]),
        "subscription_id": marks.get(SUBSCRIPTION, ""),
        "status": content["status"],
        "currency": content["currency"],
        "amount_due_minor": content["amount_due"],
        "amount_paid_minor": content["amount_paid"],
        "period_start": content["period_start"],
        "period_end": content["period_end"],
        "created": content["created"],
        "version": version,
        "source": source,
    }
    return msgspec.convert(fields, StripeInvoice)


def _id(reference: Any) -> str:
    """The id of what may be expanded."""
    return str(reference["id"] if isinstance(reference, Mapping) else reference)
