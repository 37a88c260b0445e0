"""Usage, budgets and billing events over HTTP."""

from api.billing import budgets, events, usage
from api.billing.answers import (
    BillingEventHistoryResponse,
    BudgetListResponse,
    BudgetResponse,
    UsageRecordedResponse,
    UsageSummaryResponse,
)
from api.problems import SERVICE
from api.routing import Route, Who

_TENANT = "/api/v1/billing/tenants/{tenant_id}"
_REPORT = ("admin", "developer", "compute", "billing")
_READ = ("admin", "developer", "billing", "viewer")
_MANAGE = ("admin", "billing")

ROUTES = [
    Route(
        "POST",
        f"{_TENANT}/usage",
        usage.record_usage,
        dialect=SERVICE,
        who=Who.SESSION_OR_KEY,
        roles=_REPORT,
        body=usage.UsageRecordRequest,
        response=UsageRecordedResponse,
        status=201,
        tags=("billing",),
        summary="Record Usage",
        refusals=(404, 409),
        max_body=64 * 1024,
        description="An idempotency key, in the body or in the header `Idempotency-Key`, counts "
        "once for ever. The same key with another meter, quantity or time is refused (409).",
    ),
    Route(
        "GET",
        f"{_TENANT}/usage",
        usage.summarize_usage,
        dialect=SERVICE,
        who=Who.SESSION_OR_KEY,
        roles=_READ,
        query=usage.UsageQuery,
        response=UsageSummaryResponse,
        tags=("billing",),
        summary="Summarize Usage",
        refusals=(404,),
        description="Totals by meter and UTC hour, day or month. LLM calls that agents report are "
        "metered as `llm.calls`, `llm.tokens_in`, `llm.tokens_out` and `llm.cost_nanodollars`.",
    ),
    Route(
        "GET",
        f"{_TENANT}/events",
        events.list_events,
        dialect=SERVICE,
        who=Who.SESSION_OR_KEY,
        roles=_READ,
        query=events.EventsQuery,
        response=BillingEventHistoryResponse,
        tags=("billing",),
        summary="List Billing Events",
        refusals=(404,),
    ),
    Route(
        "GET",
        "/api/v1/billing/stream",
        events.stream_events,
        dialect=SERVICE,
        who=Who.SESSION_OR_KEY,
        roles=_READ,
        query=events.StreamQuery,
        stream=True,
        media_type="text/event-stream",
        tags=("billing",),
        summary="Billing Event Stream",
        refusals=(400, 429),
        description="Server-sent events. `id` is a log position: send the last one as "
        "`Last-Event-ID` to go on without loss. An event `resync` says that the log does not hold "
        "that position any more.",
    ),
    Route(
        "GET",
        f"{_TENANT}/budgets",
        budgets.list_budgets,
        dialect=SERVICE,
        who=Who.SESSION_OR_KEY,
        roles=_READ,
        query=budgets.BudgetsQuery,
        response=BudgetListResponse,
        tags=("billing",),
        summary="List Budgets",
        refusals=(404,),
    ),
    Route(
        "PUT",
        f"{_TENANT}/budgets/{{meter}}/{{window}}",
        budgets.set_budget,
        dialect=SERVICE,
        who=Who.SESSION_OR_KEY,
        roles=_MANAGE,
        body=budgets.BudgetRequest,
        response=BudgetResponse,
        tags=("billing",),
        summary="Set Budget",
        refusals=(404,),
        max_body=16 * 1024,
        description="`window` is hour, day or month. An event `budget_reached` comes once in each "
        "window for each percent of the limit that usage comes to.",
    ),
    Route(
        "DELETE",
        f"{_TENANT}/budgets/{{meter}}/{{window}}",
        budgets.remove_budget,
        dialect=SERVICE,
        who=Who.SESSION_OR_KEY,
        roles=_MANAGE,
        status=204,
        tags=("billing",),
        summary="Remove Budget",
        refusals=(404, 422),
    ),
]
