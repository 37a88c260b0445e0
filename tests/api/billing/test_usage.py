"""Recording usage over HTTP: what counts, what is refused, who may."""

from typing import Any

import pytest

from api.billing import ROUTES
from schemas.billing.usage import UsageRecorded
from tests.api.harness import OTHER_TENANT, TENANT, Harness

PATH = f"/api/v1/billing/tenants/{TENANT}/usage"
BODY = {"feature_key": "api.requests", "quantity": 3}


async def post(app: Harness, body: Any = None, **headers: str) -> Any:
    credential = app.key(roles=("billing",))
    return await app.client.post(PATH, json=body or BODY, headers={**credential, **headers})


async def test_usage_is_recorded() -> None:
    async with Harness(ROUTES) as app:
        answer = await post(app)
        assert answer.status_code == 201
        found = answer.json()
        assert found["success"] is True
        assert found["data"]["usage_id"].startswith("usg_")
        assert found["data"]["feature_key"] == "api.requests"
        assert found["data"]["quantity"] == 3
        assert answer.headers["x-log-position"]
        assert [event.quantity for event in app.bus.emitted(UsageRecorded)] == [3]


async def test_everything_that_is_said_of_a_usage_is_kept() -> None:
    async with Harness(ROUTES) as app:
        body = {
            "meter": "gpu.seconds",
            "quantity": 60,
            "timestamp": "2023-11-14T22:00:00Z",
            "period_start": "2023-11-14T21:00:00+00:00",
            "period_end": "2023-11-14T22:00:00Z",
            "metadata": {"pool": "a", "n": 10**30},
        }
        answer = await post(app, body)
        assert answer.json()["data"]["occurred_at"] == "2023-11-14T22:00:00Z"
        (event,) = app.bus.emitted(UsageRecorded)
        assert event.meter == "gpu.seconds"
        assert event.period_end - event.period_start == 3_600_000_000
        assert '"pool"' in event.metadata


@pytest.mark.parametrize("place", ["body", "header"])
async def test_an_idempotency_key_counts_once(place: str) -> None:
    async with Harness(ROUTES) as app:
        body = BODY | ({"idempotency_key": "k 1"} if place == "body" else {})
        headers = {} if place == "body" else {"Idempotency-Key": "k 1"}
        credential = app.key()
        answers = [
            await app.client.post(PATH, json=body, headers={**credential, **headers})
            for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [201] * 3
        assert len({answer.text for answer in answers}) == 1
        assert len(app.bus.emitted(UsageRecorded)) == 1


async def test_without_a_key_each_request_counts() -> None:
    async with Harness(ROUTES) as app:
        for _ in range(2):
            await post(app)
        assert len(app.bus.emitted(UsageRecorded)) == 2


async def test_a_key_for_another_usage_is_refused() -> None:
    async with Harness(ROUTES) as app:
        await post(app, BODY | {"idempotency_key": "k"})
        answer = await post(app, BODY | {"idempotency_key": "k", "quantity": 4})
        assert answer.status_code == 409
        assert isinstance(answer.json()["detail"], str)
        assert len(app.bus.emitted(UsageRecorded)) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"feature_key": "a"}, "quantity"),
        ({"quantity": 1}, "feature_key"),
        ({"feature_key": "a", "quantity": 0}, "quantity"),
        ({"feature_key": "a", "quantity": -1}, "quantity"),
        ({"feature_key": "a", "quantity": 1.5}, "quantity"),
        ({"feature_key": "a", "quantity": 10**15 + 1}, "quantity"),
        ({"feature_key": "a b", "quantity": 1}, "feature_key"),
        ({"feature_key": "a" * 101, "quantity": 1}, "feature_key"),
        ({"feature_key": "a", "meter": "b", "quantity": 1}, "feature_key"),
        ({"feature_key": "a", "quantity": 1, "timestamp": "yesterday"}, "timestamp"),
        ({"feature_key": "a", "quantity": 1, "metadata": [1]}, "metadata"),
        ({"feature_key": "a", "quantity": 1, "metadata": {"a": "x" * 9000}}, "metadata"),
        ({"feature_key": "a", "quantity": 1, "idempotency_key": "a\x00b"}, "idempotency_key"),
    ],
)
async def test_a_wrong_body_is_told_with_its_field(body: Any, field: str) -> None:
    async with Harness(ROUTES) as app:
        answer = await post(app, body)
        assert answer.status_code == 422
        detail = answer.json()["detail"]
        assert detail[0]["loc"][0] == "body"
        assert field in detail[0]["loc"] or field in detail[0]["msg"]
        assert app.bus.payloads() == []


async def test_usage_of_the_future_is_refused() -> None:
    async with Harness(ROUTES) as app:
        answer = await post(app, BODY | {"timestamp": "2123-01-01T00:00:00Z"})
        assert answer.status_code == 422


async def test_another_tenant_is_not_there() -> None:
    async with Harness(ROUTES) as app:
        path = PATH.replace(TENANT, OTHER_TENANT)
        answer = await app.client.post(path, json=BODY, headers=app.key())
        assert answer.status_code == 404
        assert app.bus.payloads() == []


@pytest.mark.parametrize(
    ("role", "status"),
    [("admin", 201), ("billing", 201), ("developer", 201), ("compute", 201), ("viewer", 403)],
)
async def test_who_may_record_usage(role: str, status: int) -> None:
    async with Harness(ROUTES) as app:
        for headers in (app.key(roles=(role,)), app.human(roles=(role,))):
            answer = await app.client.post(PATH, json=BODY, headers=headers)
            assert answer.status_code == status


async def test_the_summary_has_pages_and_totals() -> None:
    async with Harness(ROUTES) as app:
        rows = [
            {"meter": "m", "window_start": day * 86_400_000_000,
             "window_end": (day + 1) * 86_400_000_000, "quantity": 10**20, "records": day}
            for day in range(3)
        ]  # fmt: skip
        asked: list[Any] = []

        def page(*params: Any) -> Any:
            asked.append(params)
            return [row for row in rows if row["window_start"] > params[6]][: params[-1]]

        app.reads.when("SELECT meter, window_start", page)
        app.reads.when("SELECT meter, sum(quantity)", [{"meter": "m", "quantity": 3, "records": 3}])
        app.reads.when("next_offset FROM", [{"topic": "billing", "partition": 0, "next_offset": 7}])
        first = await app.client.get(f"{PATH}?limit=2&meter=m", headers=app.key())
        found = first.json()
        assert [item["window_start"] for item in found["items"]] == [
            "1970-01-01T00:00:00Z",
            "1970-01-02T00:00:00Z",
        ]
        assert found["items"][0]["quantity"] == 10**20
        assert found["totals"] == [{"feature_key": "m", "quantity": 3, "records": 3}]
        assert found["positions"] == ["billing:0:7"]
        cursor = found["next_cursor"]
        second = await app.client.get(f"{PATH}?limit=2&cursor={cursor}", headers=app.key())
        assert [item["records"] for item in second.json()["items"]] == [2]
        assert second.json()["next_cursor"] is None
        assert {params[0] for params in asked} == {TENANT}


@pytest.mark.parametrize("query", ["window=year", "from=x", "cursor=%20", "cursor=AAAA", "limit=0"])
async def test_a_wrong_query_is_refused(query: str) -> None:
    async with Harness(ROUTES) as app:
        answer = await app.client.get(f"{PATH}?{query}", headers=app.key())
        assert answer.status_code == 422
