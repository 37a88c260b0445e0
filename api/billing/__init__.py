"""Usage, budgets, subscriptions, invoices and billing events over HTTP."""

from functools import partial

from api.billing import (
    budget_caps,
    budgets,
    events,
    invoices,
    stripe_webhook,
    subscriptions,
    usage,
)
from api.billing.answers import (
    BillingEventHistoryResponse,
    BudgetListResponse,
    BudgetResponse,
    UsageRecordedResponse,
    UsageSummaryResponse,
)
from api.problems import FHE, SERVICE
from api.roles import BILLERS, BILLING_READERS, USAGE_REPORTERS
from api.routing import Route, Who

_TENANT = "/api/v1/billing/tenants/{tenant_id}"

_service = partial(Route, dialect=SERVICE, who=Who.SESSION_OR_KEY, tags=("billing",))
_fhe = partial(Route, dialect=FHE, who=Who.SESSION_OR_KEY, tags=("billing",))

ROUTES = [
    _service(
        "POST",
        f"{_TENANT}/usage",
        usage.record_usage,
        roles=USAGE_REPORTERS,
        body=usage.UsageRecordRequest,
        response=UsageRecordedResponse,
        status=201,
        summary="Record Usage",
        refusals=(404, 409),
        max_body=64 * 1024,
        description="An idempotency key, in the body or in the header `Idempotency-Key`, counts "
        "once for ever. The same key with another meter, quantity or time is refused (409).",
    ),
    _service(
        "GET",
        f"{_TENANT}/usage",
        usage.summarize_usage,
        roles=BILLING_READERS,
        query=usage.UsageQuery,
        response=UsageSummaryResponse,
        summary="Summarize Usage",
        refusals=(404,),
        description="Totals by meter and UTC hour, day or month. LLM calls that agents report are "
        "metered as `llm.calls`, `llm.tokens_in`, `llm.tokens_out` and `llm.cost_nanodollars`.",
    ),
    _service(
        "GET",
        f"{_TENANT}/events",
        events.list_events,
        roles=BILLING_READERS,
        query=events.EventsQuery,
        response=BillingEventHistoryResponse,
        summary="List Billing Events",
        refusals=(404,),
    ),
    _service(
        "GET",
        "/api/v1/billing/stream",
        events.stream_events,
        roles=BILLING_READERS,
        query=events.StreamQuery,
        stream=True,
        media_type="text/event-stream",
        summary="Billing Event Stream",
        refusals=(400, 429),
        description="Server-sent events. `id` is a log position: send the last one as "
        "`Last-Event-ID` to go on without loss. An event `resync` says that the log does not hold "
        "that position any more.",
    ),
    _service(
        "GET",
        f"{_TENANT}/budgets",
        budgets.list_budgets,
        roles=BILLING_READERS,
        query=budgets.BudgetsQuery,
        response=BudgetListResponse,
        summary="List Budgets",
        refusals=(404,),
    ),
    _service(
        "PUT",
        f"{_TENANT}/budgets/{{meter}}/{{window}}",
        budgets.set_budget,
        roles=BILLERS,
        body=budgets.BudgetRequest,
        response=BudgetResponse,
        summary="Set Budget",
        refusals=(404,),
        max_body=16 * 1024,
        description="`window` is hour, day or month. An event `budget_reached` comes once in each "
        "window for each percent of the limit that usage comes to.",
    ),
    _service(
        "DELETE",
        f"{_TENANT}/budgets/{{meter}}/{{window}}",
        budgets.remove_budget,
        roles=BILLERS,
        status=204,
        summary="Remove Budget",
        refusals=(404, 422),
    ),
    _fhe(
        "GET",
        "/api/v1/billing/budget-caps",
        budget_caps.get_budget_caps,
        roles=BILLING_READERS,
        response=budget_caps.BudgetCapsItem,
        summary="Show budget caps",
    ),
    _fhe(
        "PATCH",
        "/api/v1/billing/budget-caps",
        budget_caps.set_budget_caps,
        roles=BILLERS,
        body=budget_caps.CapsBody,
        response=budget_caps.BudgetCapsItem,
        summary="Change budget caps",
        max_body=16 * 1024,
        description="A hard cap is never exceeded: a job's price is reserved when it is submitted, "
        "and a job that would exceed the cap is refused (402).",
    ),
    _fhe(
        "GET",
        "/api/v1/billing/subscriptions",
        subscriptions.list_subscriptions,
        roles=BILLING_READERS,
        query=subscriptions.ListQuery,
        response=subscriptions.SubscriptionPage,
        summary="List subscriptions",
        refusals=(400,),
    ),
    _fhe(
        "POST",
        "/api/v1/billing/subscriptions",
        subscriptions.subscribe,
        roles=BILLERS,
        body=subscriptions.SubscribeBody,
        response=subscriptions.SubscriptionItem,
        status=201,
        summary="Subscribe to a plan",
        refusals=(409, 502),
        max_body=16 * 1024,
        description="A tenant has one subscription at a time. It is `incomplete` until it is paid "
        "at `payment_url`. 502 when Stripe does not answer: nothing has changed then.",
    ),
    _fhe(
        "PATCH",
        "/api/v1/billing/subscriptions/{subscription_id}",
        subscriptions.change_plan,
        roles=BILLERS,
        body=subscriptions.ChangePlanBody,
        response=subscriptions.SubscriptionItem,
        summary="Change a subscription's plan",
        refusals=(409, 502),
        max_body=16 * 1024,
    ),
    _fhe(
        "DELETE",
        "/api/v1/billing/subscriptions/{subscription_id}",
        subscriptions.cancel,
        roles=BILLERS,
        query=subscriptions.CancelQuery,
        response=subscriptions.SubscriptionItem,
        summary="Cancel a subscription",
        refusals=(409, 502),
    ),
    _fhe(
        "GET",
        "/api/v1/billing/invoices",
        invoices.list_invoices,
        roles=BILLING_READERS,
        query=invoices.InvoicesQuery,
        response=invoices.InvoicePage,
        summary="List invoices",
        refusals=(400,),
    ),
    _fhe(
        "GET",
        "/api/v1/billing/invoices/{invoice_id}",
        invoices.get_invoice,
        roles=BILLING_READERS,
        response=invoices.InvoiceItem,
        summary="Show an invoice",
    ),
    Route(
        "POST",
        "/api/v1/billing/stripe_webhook",
        stripe_webhook.receive,
        dialect=FHE,
        who=Who.PUBLIC,
        body=bytes,
        raw_body=True,
        response=stripe_webhook.ReceivedItem,
        tags=("billing",),
        summary="Receive Stripe's events",
        description="For Stripe alone: verified by the header `Stripe-Signature`. An event has one "
        "effect, however often and in whatever order it comes.",
    ),
]
