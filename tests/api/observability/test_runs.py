"""Reporting runs: validated, appended to the log, acknowledged, and nothing else asked."""

import gzip
import json
from typing import Any

import pytest

from api.observability import ROUTES
from infra.kafka import LogUnavailable
from schemas.envelope import from_headers
from schemas.observability.run import LlmCallsRecorded, RunCompleted, RunStarted, StepsRecorded
from streams.telemetry import codec
from tests.api.harness import OTHER_TENANT, TENANT, Harness

RUNS = "/api/v1/observe/runs"
CALL = {"model": "gpt-4o", "tokens_in": 150, "tokens_out": 80, "cost": 0.001175}


def logged(app: Harness) -> list[Any]:
    return [codec().decode(record.value) for record in app.log.records.get("telemetry", [])]


async def started(app: Harness, headers: dict[str, str], **fields: Any) -> str:
    body = {"agent_name": "support-bot", **fields}
    answer = await app.client.post(f"{RUNS}/start/", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["run_id"])


async def test_starting_a_run_answers_with_its_ids_and_logs_it() -> None:
    async with Harness(ROUTES) as app:
        answer = await app.client.post(
            f"{RUNS}/start/",
            json={
                "agent_name": "support-bot",
                "inputs": {"query": "How?"},
                "metadata": {"a": 1},
                "session_id": "sess_1",
                "user_group": "beta",
            },
            headers=app.key(),
        )
        assert answer.status_code == 200
        body = answer.json()
        assert set(body) == {"run_id", "workflow_id", "started_at"}
        assert body["started_at"] == "2023-11-14T22:13:20Z"
        assert app.signer.owns_run(TENANT, body["run_id"])
        (event,) = logged(app)
        assert event == RunStarted(
            agent_name="support-bot",
            workflow_name="default",
            workflow_id=body["workflow_id"],
            started_at=app.clock.now(),
            inputs='{"query":"How?"}',
            metadata='{"a":1}',
            session_id="sess_1",
            user_group="beta",
        )
        (record,) = app.log.records["telemetry"]
        envelope = from_headers(record.headers)
        assert (envelope.tenant, envelope.stream, envelope.version) == (
            TENANT,
            f"observability.run/{body['run_id']}",
            0,
        )
        assert record.key == body["run_id"].encode()
        assert answer.headers["x-log-position"] == "telemetry:0:0"


async def test_fields_that_no_document_lists_are_kept_in_the_metadata() -> None:
    async with Harness(ROUTES) as app:
        await started(app, app.key(), metadata={"team": "a"}, release="v7", tags=["x"], team="b")
        (event,) = logged(app)
        assert json.loads(event.metadata) == {"team": "a", "release": "v7", "tags": ["x"]}


async def test_the_same_idempotency_key_starts_the_same_run() -> None:
    async with Harness(ROUTES) as app:
        headers = {**app.key(), "Idempotency-Key": "start-1"}
        assert await started(app, headers) == await started(app, headers)
        other = {**headers, "Idempotency-Key": "start-2"}
        assert await started(app, headers) != await started(app, other)


async def test_llm_calls_are_one_record_with_ids() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        answer = await app.client.post(
            f"{RUNS}/{run_id}/llm-calls/",
            json={"calls": [CALL, {**CALL, "id": "mine", "cost": None, "task": None}]},
            headers=key,
        )
        assert answer.status_code == 200
        assert answer.json() == {"status": "ok", "count": 2}
        event = logged(app)[1]
        assert isinstance(event, LlmCallsRecorded)
        first, second = event.calls
        assert (first.cost, first.tokens_in, first.task) == (0.001175, 150, "")
        assert (second.id, second.cost) == ("mine", None)
        assert first.id.startswith("call_")
        assert first.id.endswith("_0")


async def test_a_repeat_under_the_same_key_has_the_same_ids() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        for _ in range(2):
            await app.client.post(
                f"{RUNS}/{run_id}/llm-calls/",
                json={"calls": [CALL, CALL]},
                headers={**key, "Idempotency-Key": "k"},
            )
        _, first, second = logged(app)
        assert first == second
        first_id, second_id = (call.id for call in first.calls)
        assert first_id != second_id


async def test_completing_a_run_logs_its_steps_first() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        answer = await app.client.post(
            f"{RUNS}/{run_id}/complete/",
            json={
                "status": "interrupted",
                "error": "user left",
                "result": {"answer": "x"},
                "steps": [{"step_name": "last", "output": {"n": 1}}],
                "exit_code": 7,
            },
            headers=key,
        )
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        _, steps, completed = logged(app)
        assert isinstance(steps, StepsRecorded)
        assert [step.step_name for step in steps.steps] == ["last"]
        assert completed == RunCompleted(
            status="interrupted",
            completed_at=app.clock.now(),
            result='{"answer":"x"}',
            error="user left",
            metadata='{"exit_code":7}',
        )


async def test_completing_needs_no_body() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        answer = await app.client.post(f"{RUNS}/{run_id}/complete", headers=key)
        assert answer.status_code == 200
        assert logged(app)[1].status == "success"


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("steps/", {"steps": [{"step_name": "a"}, {"step_name": "b", "output": {}}]}, "count"),
        ("spans/", {"spans": [{"name": "s", "kind": "llm", "duration_ms": None}] * 2}, "count"),
        ("scores/", {"scores": [{"name": "ok", "numeric_value": 1.0}] * 2}, "recorded"),
    ],
)
async def test_other_items_are_recorded_and_counted(
    path: str, body: dict[str, Any], answer: str
) -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        response = await app.client.post(f"{RUNS}/{run_id}/{path}", json=body, headers=key)
        assert response.status_code == 200
        assert response.json()[answer] == 2
        assert len(logged(app)) == 2


async def test_numbers_as_clients_measure_them_lose_no_batch() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        spans = [{"name": "s", "kind": "tool", "duration_ms": ms} for ms in (12.345, 250, 1e3)]
        calls = [{**CALL, "tokens_in": 150.0, "tokens_out": 80}]
        for path, body in (("spans/", {"spans": spans}), ("llm-calls/", {"calls": calls})):
            answer = await app.client.post(f"{RUNS}/{run_id}/{path}", json=body, headers=key)
            assert answer.status_code == 200
        _, spans_told, calls_told = logged(app)
        assert [span.duration_ms for span in spans_told.spans] == [12, 250, 1000]
        assert (calls_told.calls[0].tokens_in, calls_told.calls[0].tokens_out) == (150, 80)


@pytest.mark.parametrize("path", ["llm-calls/", "steps/", "spans/", "scores/", "complete/"])
async def test_a_run_of_another_tenant_or_of_nobody_is_not_found(path: str) -> None:
    bodies = {
        "llm-calls/": {"calls": [CALL]},
        "steps/": {"steps": []},
        "spans/": {"spans": []},
        "scores/": {"scores": []},
        "complete/": {},
    }
    async with Harness(ROUTES) as app:
        stranger = app.key(OTHER_TENANT)
        own = await started(app, app.key())
        forged = f"{own[:-1]}{'0' if own[-1] != '0' else '1'}"
        for run_id, headers in ((own, stranger), (forged, app.key()), ("run_1", app.key())):
            answer = await app.client.post(
                f"{RUNS}/{run_id}/{path}", json=bodies[path], headers=headers
            )
            assert answer.status_code == 404
            assert set(answer.json()) == {"error"}
        assert len(logged(app)) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "calls"),
        ({"calls": {}}, "calls"),
        ({"calls": [{**CALL, "tokens_in": "many"}]}, "calls[0].tokens_in"),
        ({"calls": [CALL, {**CALL, "tokens_out": -1}]}, "calls[1].tokens_out"),
        ({"calls": [{**CALL, "cost": -0.5}]}, "calls[0].cost"),
        ({"calls": [{"model": "m", "tokens_in": 1}]}, "calls[0].tokens_out"),
        ({"calls": [{**CALL, "model": ""}]}, "calls[0].model"),
        ({"calls": [{**CALL, "metadata": [1]}]}, "calls[0].metadata"),
        ({"calls": [{**CALL, "tokens_in": 2**70}]}, "calls[0].tokens_in"),
    ],
)
async def test_bad_input_is_refused_with_the_fields_name(body: Any, field: str) -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        answer = await app.client.post(f"{RUNS}/{run_id}/llm-calls/", json=body, headers=key)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(field)
        assert len(logged(app)) == 1


async def test_nan_is_read_as_null_and_loses_nothing() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        body = (
            b'{"calls":[{"model":"m","tokens_in":NaN,"tokens_out":3,"cost":Infinity,'
            b'"metadata":{"p":NaN}}]}'
        )
        answer = await app.client.post(f"{RUNS}/{run_id}/llm-calls/", content=body, headers=key)
        assert answer.status_code == 200, answer.text
        (call,) = logged(app)[1].calls
        assert (call.tokens_in, call.tokens_out, call.cost) == (0, 3, None)
        assert call.metadata == '{"p":null}'


async def test_a_start_with_nan_keeps_its_unlisted_fields() -> None:
    async with Harness(ROUTES) as app:
        content = b'{"agent_name":"a","confidence":NaN,"release":"v7"}'
        answer = await app.client.post(f"{RUNS}/start/", content=content, headers=app.key())
        assert answer.status_code == 200, answer.text
        assert json.loads(logged(app)[0].metadata) == {"confidence": None, "release": "v7"}


async def test_a_large_gzipped_report_becomes_several_records_of_bounded_size() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        calls = [{**CALL, "prompt_preview": "x" * 1500} for _ in range(3000)]
        answer = await app.client.post(
            f"{RUNS}/{run_id}/llm-calls/",
            content=gzip.compress(json.dumps({"calls": calls}).encode()),
            headers={**key, "Content-Encoding": "gzip"},
        )
        assert answer.json() == {"status": "ok", "count": 3000}
        records = app.log.records["telemetry"][1:]
        assert len(records) > 1
        assert max(len(record.value or b"") for record in records) <= 900_000
        ids = [call.id for event in logged(app)[1:] for call in event.calls]
        assert len(set(ids)) == 3000
        assert answer.headers["x-log-position"] == f"telemetry:0:{len(records)}"


async def test_an_item_that_no_record_can_hold_is_named() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        calls = [CALL] * 600 + [{**CALL, "prompt_preview": "x" * 1_000_000}]
        answer = await app.client.post(
            f"{RUNS}/{run_id}/llm-calls/", json={"calls": calls}, headers=key
        )
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("calls[600]")
        assert len(logged(app)) == 1


async def test_nothing_to_record_is_fine() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        answer = await app.client.post(
            f"{RUNS}/{run_id}/llm-calls/", json={"calls": []}, headers=key
        )
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "count": 0})


async def test_without_the_log_there_is_no_success() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        run_id = await started(app, key)
        app.log.fail_with = LogUnavailable("no broker")
        answer = await app.client.post(
            f"{RUNS}/{run_id}/llm-calls/", json={"calls": [CALL]}, headers=key
        )
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1


async def test_reports_need_an_api_key() -> None:
    async with Harness(ROUTES) as app:
        for headers, status in (({}, 401), (app.human(), 403), (app.agent(), 403)):
            answer = await app.client.post(
                f"{RUNS}/start/", json={"agent_name": "a"}, headers=headers
            )
            assert answer.status_code == status
