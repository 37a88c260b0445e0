"""Budget caps over HTTP."""

from typing import Any

import pytest

from api.billing import ROUTES
from infra.clock import ManualClock, iso
from projections.billing import VIEWS
from schemas.billing.account import (
    ACCOUNT_ID,
    STREAM,
    Balance,
    ChargeReserved,
    EvaluationKeyAdmitted,
    PlanAssigned,
    SpendingCapsSet,
)
from schemas.billing.window import window_of
from schemas.envelope import Actor, Envelope
from streams.effects import Recorded
from tests.api.harness import OTHER_TENANT, TENANT, Harness
from tests.api.view_rows import ViewRows

PATH = "/api/v1/billing/budget-caps"
DAY = {"limit_nanodollars": 100, "mode": "hard", "alert_percents": [50, 100]}


class Caps(Harness):
    """The routes of billing over views in memory."""

    def __init__(self) -> None:
        self.rows = ViewRows(VIEWS)
        super().__init__(ROUTES, apply=self.rows.apply, clock=ManualClock())
        self.reads.when("FROM billing_accounts", self.rows.where("billing_accounts", "tenant"))
        self.headers = self.key(roles=("billing",))

    async def recorded(self, event: Any) -> None:
        """An event that another decider has emitted."""
        at = self.clock.now()
        envelope = Envelope("evt", "t", TENANT, f"{STREAM}/{ACCOUNT_ID}", 1, at, Actor("user", "u"))
        await self.rows.apply([Recorded(envelope, event)])

    async def patch(self, body: Any) -> Any:
        return await self.client.patch(PATH, json=body, headers=self.headers)

    async def get(self) -> Any:
        return (await self.client.get(PATH, headers=self.headers)).json()


async def test_caps_are_set_changed_and_taken_away() -> None:
    async with Caps() as app:
        assert (await app.get())["day"]["cap"] is None
        changed = (await app.patch({"day": DAY, "month": {"limit_nanodollars": 900}})).json()
        assert changed["day"]["cap"] == DAY
        assert changed["month"]["cap"]["alert_percents"] == [50, 80, 100]
        assert changed == await app.get()
        only = (await app.patch({"day": None})).json()
        assert (only["day"]["cap"], only["month"]) == (None, changed["month"])
        assert (await app.patch({})).json() == only
        assert len(app.bus.emitted(SpendingCapsSet)) == 2


async def test_what_is_left_counts_what_is_set_aside_and_resets() -> None:
    async with Caps() as app:
        now = app.clock.now()
        day, month = window_of("day", now), window_of("month", now)
        await app.patch({"day": DAY})
        balance = Balance(20, day.start, 30, month.start, 40)
        charge = ChargeReserved(charge_id="j", amount=20, price_version="v", balance=balance)
        await app.recorded(charge)
        await app.recorded(PlanAssigned(plan_code="starter"))
        found = await app.get()
        assert found["day"]["spent_nanodollars"] == 30
        assert found["day"]["left_nanodollars"] == 50
        assert found["day"]["resets_at"] == iso(day.end)
        assert found["month"]["left_nanodollars"] is None
        assert found["quota"]["plan"] == "starter"
        quota = found["quota"]
        assert quota["limit_nanodollars"] - quota["left_nanodollars"] == 60
        assert found["reserved_nanodollars"] == 20
        app.clock.advance((day.end - now) / 1_000_000)
        assert (await app.get())["day"]["left_nanodollars"] == 80


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"day": {"limit_nanodollars": -1}}, 422),
        ({"day": {"limit_nanodollars": 1.5}}, 422),
        ({"day": {"limit_nanodollars": 1, "mode": "soft"}}, 422),
        ({"day": {"limit_nanodollars": 1, "alert_percents": []}}, 422),
        ({"day": {"limit_nanodollars": 2}, "month": {"limit_nanodollars": 1}}, 400),
    ],
)
async def test_caps_that_make_no_sense_are_refused(body: Any, status: int) -> None:
    async with Caps() as app:
        answer = await app.patch(body)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
        assert app.bus.payloads() == []


async def test_caps_are_the_tenants_own() -> None:
    async with Caps() as app:
        await app.patch({"day": DAY})
        others = app.key(OTHER_TENANT, roles=("billing",))
        found = await app.client.get(PATH, headers=others)
        assert found.json()["day"]["cap"] is None


async def test_only_those_who_manage_money_set_caps() -> None:
    async with Caps() as app:
        for role in ("developer", "compute", "viewer"):
            answer = await app.client.patch(PATH, json={}, headers=app.key(roles=(role,)))
            assert answer.status_code == 403
        readers = app.key(roles=("viewer",))
        assert (await app.client.get(PATH, headers=readers)).status_code == 200


async def test_what_the_plan_allows_besides_money_is_told() -> None:
    async with Caps() as app:
        await app.recorded(EvaluationKeyAdmitted(key_id="ek_1", live=1))
        quota = (await app.get())["quota"]
        assert (quota["evaluation_keys"], quota["evaluation_keys_max"]) == (1, 10)
        assert quota["requests_per_minute"] == 600
