"""Requests a minute by plan: known from memory, told in the headers, changed by the log."""

from typing import Any

import pytest

from api.billing.plan_limits import CACHE, PlanLimits, plan_limits
from api.subscription import LiveEvent
from commands.billing.plans import PLANS
from infra.postgres import DatabaseUnavailable
from schemas.avro_derivation import tag_of
from schemas.billing.account import (
    ACCOUNT_ID,
    STREAM,
    AccountEvent,
    Balance,
    ChargeReserved,
    PlanAssigned,
)
from schemas.envelope import SYSTEM, Envelope, to_headers
from streams.runtime import codec
from tests.api.fake_log import FakeRecord
from tests.api.harness import OTHER_TENANT, Harness
from tests.api.memory import MemoryReads
from tests.api.test_limits import Ticks

KEYS = "/api/v1/keys"
ACCOUNT = f"{STREAM}/{ACCOUNT_ID}"
LIMITS = {"rate_limit_per_minute": 60_000, "rate_limit_burst": 5_000}


def reads_of(plans: dict[str, str]) -> tuple[MemoryReads, list[str]]:
    """Accounts on these plans, and which tenants were looked up."""
    reads, asked = MemoryReads(), []

    def rows(tenant: str) -> list[dict[str, Any]]:
        asked.append(tenant)
        return [{"plan_code": plans[tenant]}] if tenant in plans else []

    reads.when("FROM billing_accounts", rows)
    return reads, asked


@pytest.mark.parametrize("plan", [PLANS["trial"], PLANS["payg"], PLANS["starter"]])
async def test_a_plan_allows_so_many_requests_a_minute_of_the_whole_tenant(plan: Any) -> None:
    reads, asked = reads_of({"ten_1": plan.code})
    ticks = Ticks()
    limits = PlanLimits(reads, ticks)
    permits = [await limits.take("ten_1") for _ in range(plan.requests_per_minute + 1)]
    assert [permit.retry_after for permit in permits[:-1]] == [0] * plan.requests_per_minute
    assert permits[-1].retry_after == 1
    assert permits[-1].limit == plan.requests_per_minute
    ticks.now += 60
    assert (await limits.take("ten_1")).remaining == plan.requests_per_minute - 1
    # The database is asked once, whatever comes.
    assert asked == ["ten_1"]


async def test_another_plan_holds_as_soon_as_the_log_tells() -> None:
    reads, asked = reads_of({})
    limits = PlanLimits(reads)
    assert (await limits.take("ten_1")).limit == PLANS["payg"].requests_per_minute
    limits.assign("ten_1", "scale")
    assert (await limits.take("ten_1")).limit == PLANS["scale"].requests_per_minute
    limits.assign("ten_1", "starter")
    assert (await limits.take("ten_1")).limit == PLANS["starter"].requests_per_minute
    limits.assign("ten_2", "pro")
    assert (await limits.take("ten_2")).limit == PLANS["pro"].requests_per_minute
    assert asked == ["ten_1"]
    limits.clear()
    await limits.take("ten_1")
    assert asked == ["ten_1", "ten_1"]


async def test_what_the_log_tells_during_a_look_up_is_newer_than_its_row() -> None:
    reads = MemoryReads()
    limits = PlanLimits(reads)

    def rows(tenant: str) -> list[dict[str, Any]]:
        limits.assign(tenant, "pro")
        return [{"plan_code": "payg"}]

    reads.when("FROM billing_accounts", rows)
    assert (await limits.take("ten_1")).limit == PLANS["pro"].requests_per_minute


async def test_without_the_database_the_default_holds_and_is_not_kept() -> None:
    reads, _ = reads_of({"ten_1": "pro"})
    limits = PlanLimits(reads)
    reads.fail_with = DatabaseUnavailable("away")
    assert (await limits.take("ten_1")).limit == PLANS["payg"].requests_per_minute
    reads.fail_with = None
    assert (await limits.take("ten_1")).limit == PLANS["pro"].requests_per_minute


def told(event: AccountEvent) -> LiveEvent:
    """An event of an account, as the tail of the log tells of it."""
    envelope = Envelope("evt_1", tag_of(type(event)), "ten_1", ACCOUNT, 1, 0, SYSTEM)
    headers = tuple(to_headers(envelope))
    return LiveEvent(FakeRecord("events", 0, 1, headers, codec().encode(event)), codec())


def test_only_a_plans_event_is_read() -> None:
    limits = PlanLimits(MemoryReads())

    balance = Balance(1, 0, 0, 0, 0)
    for event in (
        PlanAssigned(plan_code="pro"),
        ChargeReserved(charge_id="c", amount=1, price_version="1", balance=balance),
    ):
        limits.follow(told(event))
    assert limits._plans == {"ten_1": "pro"}


async def test_requests_of_encrypted_computation_are_limited_by_plan_and_others_are_not() -> None:
    async with Harness(changes=LIMITS) as app:
        reads, _ = reads_of({"ten_test": "trial"})
        app.services.caches[CACHE] = limits = PlanLimits(reads, Ticks())
        app.app._plans = limits
        app.reads.when("FROM fhe_keys", lambda *_: [])
        one, other = app.key(), app.key()
        theirs = app.key(OTHER_TENANT)
        most = PLANS["trial"].requests_per_minute
        for number in range(most):
            # All credentials of a tenant count together.
            answer = await app.client.get(KEYS, headers=other if number % 2 else one)
            assert answer.status_code == 200, answer.text
            assert answer.headers["ratelimit-limit"] == str(most)
            assert answer.headers["ratelimit-remaining"] == str(most - 1 - number)
        refused = await app.client.get(KEYS, headers=one)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["ratelimit-limit"] == str(most)
        # Neither the other tenant nor what is no encrypted computation waits for it.
        assert (await app.client.get(KEYS, headers=theirs)).status_code == 200
        app.reads.when("FROM api_keys", lambda *_: [])
        assert (await app.client.get("/api/v1/api-keys", headers=one)).status_code == 200
        limits.assign("ten_test", "pro")
        assert (await app.client.get(KEYS, headers=one)).status_code == 200


async def test_an_installation_without_rate_limits_has_none_by_plan() -> None:
    async with Harness(changes={"rate_limit_per_minute": 0}) as app:
        assert app.app._plans is None
        assert plan_limits(app.services) is plan_limits(app.services)
