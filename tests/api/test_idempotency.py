"""Idempotency-Key: one effect, one answer; another request under the same key is refused."""

import uuid
from collections.abc import AsyncIterator

import httpx
import pytest

from api.keyed_reports import KeyedReports
from api.observability import ROUTES as OBSERVABILITY
from infra.clock import ManualClock
from infra.kafka import LogUnavailable
from tests.api.harness import OTHER_TENANT, TENANT, Harness
from tests.api.sample import COUNTER, ROUTES, Added


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(ROUTES, deciders=[COUNTER]) as harness:
        yield harness


async def test_the_same_key_has_one_effect_and_one_answer(app: Harness) -> None:
    headers = {**app.human(), "Idempotency-Key": "order 66"}
    first = await app.client.post("/v1/sums/1", json={"n": 4}, headers=headers)
    again = await app.client.post("/v1/sums/1/", json={"n": 4}, headers=headers)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json() == {"data": {"total": 4}}
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert app.bus.payloads() == [Added(4)]
    assert len({request.command_id for request in app.bus.requests}) == 1


async def test_without_a_key_each_request_is_its_own(app: Harness) -> None:
    headers = app.human()
    for total in (4, 8):
        answer = await app.client.post("/v1/sums/1", json={"n": 4}, headers=headers)
        assert answer.json() == {"data": {"total": total}}


@pytest.mark.parametrize(
    ("path", "credential", "status"),
    [
        ("/v1/sums/1", "human", 409),
        ("/api/v1/observe/sums/1", "key", 409),
        ("/waxell/v1/sums/1", "key", 409),
        ("/api/v1/keys/1", "key", 422),
        ("/api/v1/sums/1", "human", 422),
    ],
)
async def test_the_same_key_with_another_request_is_refused(
    app: Harness, path: str, credential: str, status: int
) -> None:
    headers = {**getattr(app, credential)(), "Idempotency-Key": "k"}
    await app.client.post(path, json={"n": 1}, headers=headers)
    other = await app.client.post(path, json={"n": 2}, headers=headers)
    assert other.status_code == status
    assert "idempotency key" in other.text
    assert app.bus.payloads() == [Added(1)]


async def test_the_first_answer_comes_again_also_when_it_was_a_refusal(app: Harness) -> None:
    headers = {**app.human(), "Idempotency-Key": "k"}
    for _ in range(2):
        answer = await app.client.post("/v1/sums/1", json={"n": 101}, headers=headers)
        assert answer.json()["error"]["code"] == "TOO_MUCH"
    assert answer.headers["idempotency-replayed"] == "true"


async def test_a_key_belongs_to_its_caller(app: Harness) -> None:
    key = {"Idempotency-Key": "k"}
    callers = [app.human(), app.human(), app.agent(), app.human(OTHER_TENANT)]
    for caller in callers:
        await app.client.post("/v1/sums/1", json={"n": 1}, headers={**caller, **key})
    assert len({request.command_id for request in app.bus.requests}) == len(callers)
    assert len(app.bus.payloads()) == len(callers)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "é"])
async def test_a_malformed_key_is_refused(app: Harness, key: str) -> None:
    headers = {**app.human(), "Idempotency-Key": key.encode()}
    answer = await app.client.post(
        "/v1/sums/1",
        json={"n": 1},
        headers=headers,  # type: ignore[arg-type]
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("Idempotency-Key: ")
    assert app.bus.requests == []


async def test_without_a_credential_only_an_unguessable_key_will_do(app: Harness) -> None:
    short = await app.client.post("/api/v1/open", json={}, headers={"Idempotency-Key": "1"})
    assert short.status_code == 422
    assert short.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]
    key = {"Idempotency-Key": str(uuid.uuid4())}
    one = await app.client.post("/api/v1/open", json={}, headers=key)
    two = await app.client.post("/api/v1/open", json={}, headers=key)
    assert one.json()["command_id"] == two.json()["command_id"]


async def test_the_fingerprint_covers_method_path_query_and_body(app: Harness) -> None:
    headers = {**app.human(), "Idempotency-Key": "k"}
    seen = set()
    for path, body in (("/1", "a"), ("/1", "b"), ("/2", "a"), ("/1?x=1", "a")):
        answer = await app.client.post(f"/api/v1/echo{path}", json={"note": body}, headers=headers)
        seen.add(answer.json()["fingerprint"])
    put = await app.client.put("/v1/echo/1", json={"note": "a"}, headers=headers)
    seen.add(put.json()["fingerprint"])
    assert len(seen) == 5
    slash = await app.client.post("/api/v1/echo/1/", json={"note": "a"}, headers=headers)
    assert slash.json()["fingerprint"] in seen


async def test_reads_take_no_notice_of_a_key(app: Harness) -> None:
    headers = {**app.human(), "Idempotency-Key": "k"}
    one = (await app.client.get("/api/v1/echo/1", headers=headers)).json()
    assert one["fingerprint"] == ""


RUNS = "/api/v1/observe/runs"
RUN = {"agent_name": "a", "user_id": "ada"}


@pytest.fixture
async def reporting() -> AsyncIterator[Harness]:
    async with Harness(OBSERVABILITY) as harness:
        yield harness


async def test_a_run_started_under_a_used_key_is_refused_unless_it_is_the_same(
    reporting: Harness,
) -> None:
    keyed = {**reporting.key(), "Idempotency-Key": "the run"}

    async def start(**changes: str) -> httpx.Response:
        body = {**RUN, **changes}
        return await reporting.client.post(f"{RUNS}/start/", json=body, headers=keyed)

    first = await start()
    for changes in ({"user_id": "bob"}, {"user_id": ""}, {"agent_name": "b"}):
        other = await start(**changes)
        assert other.status_code == 409
        assert "idempotency key" in other.json()["error"]
    again = await start()
    assert again.json()["run_id"] == first.json()["run_id"]
    assert len(reporting.log.records["telemetry"]) == 2


async def test_a_report_under_a_used_key_is_refused_also_when_the_first_one_may_be_lost(
    reporting: Harness,
) -> None:
    run = reporting.signer.run_id(TENANT)
    keyed = {**reporting.key(), "Idempotency-Key": "the calls"}

    async def report(count: int, run_id: str = run) -> int:
        body = {"calls": [{"model": "m", "tokens_in": 1, "tokens_out": 1}] * count}
        path = f"{RUNS}/{run_id}/llm-calls/"
        return (await reporting.client.post(path, json=body, headers=keyed)).status_code

    # What was refused had no effect, so its key is free.
    assert await report(1, "run_of_somebody") == 404
    reporting.log.fail_with = LogUnavailable("away")
    assert await report(1) == 503
    reporting.log.fail_with = None
    assert [await report(2), await report(1), await report(2)] == [409, 200, 409]


async def test_keys_of_reports_are_known_for_a_day_and_the_latest_of_them() -> None:
    clock, requests = ManualClock(), ["aa" * 32, "bb" * 32]
    keyed = KeyedReports(clock, most=2)
    assert [keyed.agrees("cmd_1", request) for request in requests] == [True, False]
    clock.advance(24 * 3600)
    assert keyed.agrees("cmd_1", requests[1])
    assert all(keyed.agrees(f"cmd_{n}", requests[0]) for n in (2, 3))
    assert keyed.agrees("cmd_1", requests[0])
    assert not keyed.agrees("cmd_3", requests[1])
