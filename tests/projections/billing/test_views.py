"""The billing read models: every event, the statements it gives, no database."""

import msgspec
import pytest

from projections.billing import VIEWS, billing_events, budgets
from projections.statements import Delete, Put, Set, Statement
from schemas.billing import EVENTS
from schemas.billing.budget import BudgetReached, BudgetRemoved, BudgetSet
from schemas.billing.usage import UsageRecorded
from schemas.envelope import Actor, Envelope

AT = 1_700_000_000_000_000
BUDGET = "llm.calls@day"
KEY = {"tenant": "ten_1", "budget_id": BUDGET}
USED = UsageRecorded(usage_id="usg_1", meter="api.requests", quantity=3, occurred_at=AT - 5)
WAS_SET = BudgetSet(
    budget_id=BUDGET, revision=2, meter="llm.calls", window="day", limit=100, alert_percents=[80]
)
REMOVED = BudgetRemoved(budget_id=BUDGET, revision=2)
REACHED = BudgetReached(
    budget_id=BUDGET, revision=2, meter="llm.calls", window="day", window_start=AT, window_end=AT,
    percent=80, limit=100, total=85,
)  # fmt: skip


def envelope(type: str = "billing.usage_recorded.v1") -> Envelope:
    return Envelope("evt_1", type, "ten_1", "x/1", 1, AT, Actor("user", "usr_9", "Root"))


@pytest.mark.parametrize(
    ("event", "meter", "occurred_at"),
    [
        (USED, "api.requests", AT - 5),
        (WAS_SET, "llm.calls", AT),
        (REMOVED, "llm.calls", AT),
        (REACHED, "llm.calls", AT),
    ],
)
def test_every_event_is_listed(event: msgspec.Struct, meter: str, occurred_at: int) -> None:
    assert list(billing_events.reduce(event, envelope())) == [
        Put(
            {"tenant": "ten_1", "event_id": "evt_1"},
            {
                "event_type": "billing.usage_recorded.v1",
                "recorded_at": AT,
                "occurred_at": occurred_at,
                "meter": meter,
                "actor_kind": "user",
                "actor_id": "usr_9",
                "payload": msgspec.json.encode(event).decode(),
            },
        )
    ]


@pytest.mark.parametrize(
    ("event", "statement"),
    [
        (
            WAS_SET,
            Put(
                KEY,
                {
                    "revision": 2,
                    "meter": "llm.calls",
                    "window_kind": "day",
                    "limit_quantity": 100,
                    "alert_percents": "[80]",
                    "set_at": AT,
                    "reached_percent": 0,
                    "reached_window_start": None,
                    "reached_at": None,
                },
            ),
        ),
        (REMOVED, Delete(KEY)),
        (
            REACHED,
            Set(KEY, {"reached_percent": 80, "reached_window_start": AT, "reached_at": AT}),
        ),
    ],
)
def test_a_budget_is_known_as_it_stands(event: msgspec.Struct, statement: Statement) -> None:
    assert list(budgets.reduce(event, envelope())) == [statement]


def test_columns_exist_and_every_event_of_the_domain_is_known() -> None:
    samples = {type(sample): sample for sample in (USED, WAS_SET, REMOVED, REACHED)}
    assert set(samples) == set(EVENTS)
    for view in VIEWS:
        for event in samples.values():
            for statement in view.reduce(event, envelope()):
                values = {} if isinstance(statement, Delete) else statement.values
                assert set(values) | set(statement.key) <= set(view.columns)


def test_what_is_not_billing_is_ignored() -> None:
    for view in VIEWS:
        assert list(view.reduce(object(), envelope("identity.user_registered.v1"))) == []
