"""Budgets: one for each meter and kind of window."""

from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta, Struct, field

from api.billing.answers import BudgetListResponse, BudgetResponse
from api.billing.declaring import TENANT, service_route
from api.billing.tenant import own_tenant
from api.cursors import read_cursor, write_cursor
from api.problems import Problem, not_found
from api.roles import BILLERS, BILLING_READERS
from api.routing import Answer, Call, answer_of
from commands.billing.budget import RemoveBudget, SetBudget, budget_id
from infra.clock import iso
from projections.billing import budgets
from schemas.billing.budget import BudgetSet, Limit, Percent
from schemas.billing.usage import Meter
from schemas.billing.window import WindowKind
from schemas.types import Text


class BudgetRequest(Struct):
    """How much of the meter may be used in each window, and at which percents of it to say so."""

    limit: Limit
    alert_percents: Annotated[list[Percent], Meta(min_length=1, max_length=10)] = field(
        default_factory=lambda: [80, 100]
    )


class BudgetsQuery(Struct, frozen=True):
    """Which page of the budgets."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 50
    cursor: Annotated[Text, Meta(max_length=300)] = ""


async def set_budget(call: Call[BudgetRequest, None]) -> BudgetResponse:
    """Set or change a budget."""
    meter, window = _place(call)
    command = SetBudget(
        meter=meter,
        window=window,
        limit=call.body.limit,
        alert_percents=call.body.alert_percents,
    )
    reply = await call.send(budget_id(meter, window), command)
    stands = answer_of(reply, BudgetSet)
    return BudgetResponse(
        stands.budget_id,
        stands.meter,
        stands.window,
        stands.limit,
        list(stands.alert_percents),
        stands.revision,
    )


async def remove_budget(call: Call[None, None]) -> Answer:
    """Remove a budget."""
    meter, window = _place(call)
    await call.send(budget_id(meter, window), RemoveBudget())
    return Answer(status=204)


async def list_budgets(call: Call[None, BudgetsQuery]) -> BudgetListResponse:
    """The tenant's budgets by id, and what was reached of each."""
    own_tenant(call)
    _, after = read_cursor(call.query.cursor, (0, ""), status=422)
    rows = await call.services.reads.all(budgets.PAGE, call.tenant, after, call.query.limit + 1)
    page = rows[: call.query.limit]
    more = len(rows) > call.query.limit
    return BudgetListResponse(
        [_budget(row) for row in page], write_cursor(0, page[-1]["budget_id"]) if more else None
    )


def _budget(row: dict[str, Any]) -> BudgetResponse:
    reached = row["reached_at"] is not None
    return BudgetResponse(
        budget_id=row["budget_id"],
        feature_key=row["meter"],
        window=row["window_kind"],
        limit=row["limit_quantity"],
        alert_percents=row["alert_percents"],
        revision=row["revision"],
        set_at=iso(row["set_at"]),
        reached_percent=row["reached_percent"] if reached else None,
        reached_window_start=iso(row["reached_window_start"]) if reached else None,
        reached_at=iso(row["reached_at"]) if reached else None,
    )


def _place(call: Call[Any, None]) -> tuple[str, WindowKind]:
    """The meter and the kind of window that the path names. Raises Problem."""
    own_tenant(call)
    window = next((kind for kind in get_args(WindowKind) if kind == call.path["window"]), None)
    if window is None:
        not_found("There are budgets by hour, day and month")
    try:
        return msgspec.convert(call.path["meter"], Meter), window
    except msgspec.ValidationError:
        message = "Not the name of a meter"
        raise Problem(422, "validation_error", message, field="meter", where="path") from None


ROUTES = [
    service_route(
        "GET",
        f"{TENANT}/budgets",
        list_budgets,
        roles=BILLING_READERS,
        query=BudgetsQuery,
        response=BudgetListResponse,
        summary="List Budgets",
        refusals=(404,),
    ),
    service_route(
        "PUT",
        f"{TENANT}/budgets/{{meter}}/{{window}}",
        set_budget,
        roles=BILLERS,
        body=BudgetRequest,
        response=BudgetResponse,
        summary="Set Budget",
        refusals=(404,),
        max_body=16 * 1024,
        description="`window` is hour, day or month. An event `budget_reached` comes once in each "
        "window for each percent of the limit that usage comes to.",
    ),
    service_route(
        "DELETE",
        f"{TENANT}/budgets/{{meter}}/{{window}}",
        remove_budget,
        roles=BILLERS,
        status=204,
        summary="Remove Budget",
        refusals=(404, 422),
    ),
]
