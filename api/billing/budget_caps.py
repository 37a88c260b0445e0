"""`/api/v1/billing/budget-caps`: how much a tenant lets itself spend in a day and in a month.

Exact: what is reserved for jobs that have not ended counts, so that a hard cap is never exceeded.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from api.billing.declaring import fhe_route
from api.roles import BILLERS, BILLING_READERS
from api.routing import Call, answer_of
from commands.billing.account_state import AccountAnswer, SetSpendingCaps, balance_at
from commands.billing.plans import PAYG, plan_of
from infra.clock import iso
from projections.billing import billing_accounts
from schemas.billing.account import (
    ACCOUNT_ID,
    Balance,
    CapWindow,
    Nanodollars,
    SpendingCap,
)
from schemas.billing.budget import Percent
from schemas.billing.window import window_of

Mode = Literal["hard", "alert_only"]
Percents = Annotated[list[Percent], Meta(min_length=1, max_length=10)]


class CapBody(Struct):
    """A cap: `hard` refuses what would exceed it (402), `alert_only` only tells."""

    limit_nanodollars: Nanodollars
    mode: Mode = "hard"
    alert_percents: Percents = field(default_factory=lambda: [50, 80, 100])


class CapsBody(Struct):
    """What to change: null takes a cap away, what is missing stays."""

    day: CapBody | UnsetType | None = UNSET
    month: CapBody | UnsetType | None = UNSET


class CapItem(Struct, frozen=True):
    """A cap as it was set."""

    limit_nanodollars: int
    mode: Mode
    alert_percents: list[int]


class SpendingItem(Struct, frozen=True):
    """A window: its cap, what was spent in it, and what is left until it resets.

    left_nanodollars: None without a cap.
    """

    cap: CapItem | None
    spent_nanodollars: int
    left_nanodollars: int | None
    resets_at: str


class QuotaItem(Struct, frozen=True):
    """What the plan allows: its quota of this month (`limit_nanodollars` None where it has none),
    requests of encrypted computation a minute, and evaluation keys at a time."""

    plan: str
    limit_nanodollars: int | None
    left_nanodollars: int | None
    resets_at: str
    requests_per_minute: int
    evaluation_keys: int
    evaluation_keys_max: int


class BudgetCapsItem(Struct, frozen=True):
    """What may be spent, was spent, and is set aside for jobs that have not ended."""

    day: SpendingItem
    month: SpendingItem
    quota: QuotaItem
    reserved_nanodollars: int


async def get_budget_caps(call: Call[None, None]) -> BudgetCapsItem:
    """The caps and what is left of them."""
    row = await call.services.reads.one(billing_accounts.OF_TENANT, call.tenant) or {}
    account = AccountAnswer(
        plan_code=row.get("plan_code") or PAYG,
        day=msgspec.convert(row.get("day_cap"), SpendingCap | None),
        month=msgspec.convert(row.get("month_cap"), SpendingCap | None),
        balance=msgspec.convert(row.get("balance") or {}, Balance),
        evaluation_keys=row.get("evaluation_keys") or 0,
    )
    return _item(call, account)


async def set_budget_caps(call: Call[CapsBody, None]) -> BudgetCapsItem:
    """Set, change or take away caps; they hold for the next job."""
    body = call.body
    given: dict[CapWindow, CapBody | UnsetType | None] = {"day": body.day, "month": body.month}
    command = SetSpendingCaps(
        day=_cap(body.day),
        month=_cap(body.month),
        removed=[window for window, cap in given.items() if cap is None],
    )
    return _item(call, answer_of(await call.send(ACCOUNT_ID, command), AccountAnswer))


def _cap(body: CapBody | UnsetType | None) -> SpendingCap | None:
    if not isinstance(body, CapBody):
        return None
    return SpendingCap(body.limit_nanodollars, body.mode == "hard", body.alert_percents)


def _item(call: Call[Any, Any], account: AccountAnswer) -> BudgetCapsItem:
    now = call.services.clock.now()
    balance, plan = balance_at(account.balance, now), plan_of(account.plan_code)
    quota = plan.monthly_quota
    taken = balance.month_spent + balance.reserved
    month_end = iso(window_of("month", now).end)
    return BudgetCapsItem(
        day=_spending(account.day, balance.day_spent, balance, iso(window_of("day", now).end)),
        month=_spending(account.month, balance.month_spent, balance, month_end),
        quota=QuotaItem(
            plan=account.plan_code,
            limit_nanodollars=quota,
            left_nanodollars=_left(quota, taken),
            resets_at=month_end,
            requests_per_minute=plan.requests_per_minute,
            evaluation_keys=account.evaluation_keys,
            evaluation_keys_max=plan.evaluation_keys_max,
        ),
        reserved_nanodollars=balance.reserved,
    )


def _spending(
    cap: SpendingCap | None, spent: int, balance: Balance, resets_at: str
) -> SpendingItem:
    if cap is None:
        return SpendingItem(None, spent, None, resets_at)
    item = CapItem(cap.limit, "hard" if cap.hard else "alert_only", cap.alert_percents)
    return SpendingItem(item, spent, _left(cap.limit, spent + balance.reserved), resets_at)


def _left(limit: int | None, taken: int) -> int | None:
    return None if limit is None else max(0, limit - taken)


ROUTES = [
    fhe_route(
        "GET",
        "/api/v1/billing/budget-caps",
        get_budget_caps,
        roles=BILLING_READERS,
        response=BudgetCapsItem,
        summary="Show budget caps",
    ),
    fhe_route(
        "PATCH",
        "/api/v1/billing/budget-caps",
        set_budget_caps,
        roles=BILLERS,
        body=CapsBody,
        response=BudgetCapsItem,
        summary="Change budget caps",
        max_body=16 * 1024,
        description="A hard cap is never exceeded: a job's price is reserved when it is submitted, "
        "and a job that would exceed the cap is refused (402).",
    ),
]
