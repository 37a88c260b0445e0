"""Budgets over HTTP."""

import pytest

from api.billing import ROUTES
from schemas.billing.budget import BudgetRemoved, BudgetSet
from tests.api.harness import OTHER_TENANT, TENANT, Harness

LIST = f"/api/v1/billing/tenants/{TENANT}/budgets"
PATH = f"{LIST}/llm.calls/month"


async def test_a_budget_is_set_changed_and_removed() -> None:
    async with Harness(ROUTES) as app:
        headers = app.key(roles=("billing",))
        first = await app.client.put(PATH, json={"limit": 100}, headers=headers)
        assert first.status_code == 200
        found = first.json()
        assert found["budget_id"] == "llm.calls@month"
        assert (found["alert_percents"], found["revision"]) == ([80, 100], 1)
        again = await app.client.put(PATH, json={"limit": 100}, headers=headers)
        assert again.json()["revision"] == 1
        body = {"limit": 50, "alert_percents": [100, 50]}
        changed = await app.client.put(PATH, json=body, headers=headers)
        assert changed.json()["revision"] == 2
        gone = await app.client.delete(PATH, headers=headers)
        assert (gone.status_code, gone.content) == (204, b"")
        assert [type(event) for event in app.bus.payloads()] == [
            BudgetSet,
            BudgetSet,
            BudgetRemoved,
        ]


async def test_what_was_never_set_cannot_be_removed() -> None:
    async with Harness(ROUTES) as app:
        answer = await app.client.delete(PATH, headers=app.key())
        assert answer.status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (PATH, {"limit": 0}, 422),
        (PATH, {"limit": 1, "alert_percents": []}, 422),
        (PATH, {"limit": 1, "alert_percents": [0]}, 422),
        (f"{LIST}/llm calls/month", {"limit": 1}, 422),
        (f"{LIST}/llm.calls/year", {"limit": 1}, 404),
        (PATH.replace(TENANT, OTHER_TENANT), {"limit": 1}, 404),
    ],
)
async def test_a_wrong_budget_is_refused(path: str, body: object, status: int) -> None:
    async with Harness(ROUTES) as app:
        answer = await app.client.put(path, json=body, headers=app.key())
        assert answer.status_code == status
        assert app.bus.payloads() == []


async def test_only_those_who_manage_money_set_budgets() -> None:
    async with Harness(ROUTES) as app:
        for role, status in (("admin", 200), ("billing", 200), ("developer", 403)):
            answer = await app.client.put(PATH, json={"limit": 1}, headers=app.key(roles=(role,)))
            assert answer.status_code == status


async def test_budgets_are_listed_with_what_was_reached() -> None:
    async with Harness(ROUTES) as app:
        row = {
            "budget_id": "m@day", "revision": 1, "meter": "m", "window_kind": "day",
            "limit_quantity": 10, "alert_percents": [80], "set_at": 0, "reached_percent": 80,
            "reached_window_start": 0, "reached_at": 1_000_000,
        }  # fmt: skip
        quiet = row | {"budget_id": "n@day", "reached_percent": 0, "reached_at": None}
        app.reads.when("budgets_v1", [row, quiet])
        answer = await app.client.get(f"{LIST}?limit=1", headers=app.key(roles=("viewer",)))
        (item,) = answer.json()["items"]
        assert (item["reached_percent"], item["reached_at"]) == (80, "1970-01-01T00:00:01Z")
        assert answer.json()["next_cursor"]
        both = await app.client.get(LIST, headers=app.key())
        assert both.json()["items"][1]["reached_at"] is None
        assert both.json()["next_cursor"] is None
