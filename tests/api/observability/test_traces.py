"""OTLP/HTTP: both encodings, what is answered when, and what then is on the log."""

import gzip
import json
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from api.observability import ROUTES
from api.observability.otlp import wire_json, wire_protobuf
from api.observability.runs import MAX_BODY
from infra.kafka import LogUnavailable
from projections.observability.run_starts import RUN_STARTS
from schemas.envelope import from_headers
from schemas.observability.run import LlmCallsRecorded, RunCompleted, RunStarted, SpansRecorded
from streams.telemetry import MAX_EVENT_BYTES, codec
from tests.api.harness import OTHER_TENANT, TENANT, Harness
from tests.api.observability.otlp.recorded import ANSWER, GEN_AI, QUESTION
from tests.api.observability.world import NOON, World

PATH = "/v1/traces"
PROTOBUF, JSON = "application/x-protobuf", "application/json"
BEGAN = NOON * 1000
TRACE = bytes(range(1, 17))


def fill(attributes: Any, values: dict[str, Any]) -> None:
    """Add attributes to a message."""
    for name, value in values.items():
        found = attributes.add(key=name).value
        match value:
            case bool():
                found.bool_value = value
            case int():
                found.int_value = value
            case float():
                found.double_value = value
            case str():
                found.string_value = value
            case bytes():
                found.bytes_value = value
            case list():
                found.array_value.SetInParent()
                for item in value:
                    found.array_value.values.add(string_value=item)
            case dict():
                fill(found.kvlist_value.values, value)


def request(*spans: dict[str, Any], **resource: Any) -> ExportTraceServiceRequest:
    """A request with these spans: fields as in the message, and `values` for attributes."""
    made = ExportTraceServiceRequest()
    of_resource = made.resource_spans.add()
    fill(of_resource.resource.attributes, {"service.name": "shop", **resource})
    scope = of_resource.scope_spans.add()
    scope.scope.name = "tests"
    for index, given in enumerate(spans):
        fields = {
            "trace_id": TRACE,
            "span_id": (index + 1).to_bytes(8),
            "name": "chat",
            "start_time_unix_nano": BEGAN,
            "end_time_unix_nano": BEGAN + 2_000_000,
            **given,
        }
        values = fields.pop("values", {})
        fill(scope.spans.add(**fields).attributes, values)
    return made


def as_json(made: ExportTraceServiceRequest) -> dict[str, Any]:
    """The request in OTLP's JSON: as protobuf has it, but for ids in hex."""
    document: dict[str, Any] = MessageToDict(made)
    messages = [s for r in made.resource_spans for c in r.scope_spans for s in c.spans]
    written = [
        s for r in document["resourceSpans"] for c in r["scopeSpans"] for s in c.get("spans", [])
    ]
    for message, span in zip(messages, written, strict=True):
        for name, field in (
            ("traceId", message.trace_id),
            ("spanId", message.span_id),
            ("parentSpanId", message.parent_span_id),
        ):
            span[name] = field.hex()
        span["kind"] = message.kind
        span["status"] = {"code": message.status.code, "message": message.status.message}
    return document


CHAT = {"values": GEN_AI, "kind": 3}
ROOT = {"values": {"gen_ai.agent.name": "shipping"}, "name": "main", "span_id": b"\x99" * 8}
CHILD = {**CHAT, "parent_span_id": b"\x99" * 8}


async def post(
    app: Harness, body: Any, headers: dict[str, str] | None = None, **more: str
) -> httpx.Response:
    """Post a message as protobuf, a document as JSON, bytes as they are."""
    media_type = {"Content-Type": JSON if isinstance(body, dict) else PROTOBUF}
    if isinstance(body, ExportTraceServiceRequest):
        body = body.SerializeToString()
    elif isinstance(body, dict):
        body = json.dumps(body).encode()
    given = {**media_type, **(app.key() if headers is None else headers), **more}
    return await app.client.post(PATH, content=body, headers=given)


def logged(app: Harness) -> list[Any]:
    return [codec().decode(record.value) for record in app.log.records.get("telemetry", [])]


def accepted(answer: httpx.Response, media_type: str) -> None:
    """The answer is a full success in this encoding."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media_type
    assert answer.content == (b"{}" if media_type == JSON else b"")


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
async def test_a_trace_is_on_the_log_when_the_answer_comes(media_type: str) -> None:
    async with Harness(ROUTES) as app:
        made = request(CHILD, ROOT)
        answer = await post(app, made if media_type == PROTOBUF else as_json(made))
        accepted(answer, media_type)
        assert answer.headers["x-log-position"] == "telemetry:0:3"
        started, calls, spans, completed = logged(app)
        assert isinstance(started, RunStarted)
        assert (started.agent_name, started.workflow_name) == ("shipping", "main")
        assert started.trace_id == TRACE.hex()
        assert isinstance(calls, LlmCallsRecorded)
        assert [call.prompt_preview for call in calls.calls] == [QUESTION]
        assert [call.response_preview for call in calls.calls] == [ANSWER]
        assert isinstance(spans, SpansRecorded)
        assert [span.kind for span in spans.spans] == ["llm", "span"]
        assert isinstance(completed, RunCompleted)
        assert completed.status == "success"


async def test_a_call_without_a_cost_is_priced_and_one_with_a_cost_keeps_it() -> None:
    tokens = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20}
    asked = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", **tokens}
    async with Harness(ROUTES) as app:
        made = request({"values": asked}, {"values": {**asked, "gen_ai.usage.cost": 0.25}})
        accepted(await post(app, made), PROTOBUF)
        (recorded,) = [event for event in logged(app) if isinstance(event, LlmCallsRecorded)]
        priced, given = recorded.calls
        assert (priced.cost, priced.cost_source) == (None, "default")
        assert priced.cost_pico == 100 * 2_500_000 + 20 * 10_000_000
        assert (given.cost, given.cost_source, given.cost_pico) == (0.25, "client", 0)


VALUES = {
    "text": "ü ☃",
    "true": True,
    "int": -(2**63),
    "big": 2**63 - 1,
    "float": 0.1,
    "list": ["a", "b"],
    "none": [],
    "map": {"inner": {"deep": 1}},
    "bytes": b"\x00\xff",
}


def test_both_encodings_say_the_same() -> None:
    made = request(
        {**CHILD, "values": {**GEN_AI, **VALUES}},
        {**ROOT, "kind": 2, "status": {"code": 2, "message": "refused"}},
        {"trace_id": b"\0" * 16},
        {"span_id": b"\x01"},
        {"parent_span_id": b"\x01"},
    )
    event = made.resource_spans[0].scope_spans[0].spans[0].events.add(name="e", time_unix_nano=7)
    fill(event.attributes, VALUES)
    found = list(wire_protobuf.read(made.SerializeToString()))
    assert found == list(wire_json.read(json.dumps(as_json(made)).encode()))
    assert found[0].attributes["map"] == {"inner": {"deep": 1}}
    assert found[0].attributes["bytes"] == "AP8="
    assert [span.trace_id for span in found[2:3]] == [""]
    assert [span.span_id for span in found[3:4]] == [""]
    assert [span.parent_id for span in found] == ["99" * 8, "", "", "", None]


def json_span(**fields: Any) -> bytes:
    span = {"traceId": TRACE.hex(), "spanId": "11" * 8, **fields}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


def test_json_is_read_as_its_mapping_allows() -> None:
    body = json_span(
        traceId=TRACE.hex().upper(),
        parentSpanId=None,
        startTimeUnixNano=str(BEGAN),
        endTimeUnixNano=BEGAN,
        somethingNew={"a": [1]},
        attributes=[
            {"key": "text", "value": {"intValue": "42"}},
            {"key": "number", "value": {"intValue": 42}},
            {"key": "double", "value": {"doubleValue": 1}},
            {"key": "huge", "value": {"intValue": str(2**64)}},
            {"key": "nothing", "value": {}},
            {"key": "absent"},
        ],
    )
    (span,) = wire_json.read(body)
    assert (span.trace_id, span.parent_id) == (TRACE.hex(), "")
    assert (span.started_at, span.ended_at) == (BEGAN, BEGAN)
    assert span.attributes == {
        "text": 42,
        "number": 42,
        "double": 1.0,
        "huge": str(2**64),
        "nothing": None,
        "absent": None,
    }


async def test_nul_and_what_json_has_no_number_for_are_no_reason_to_lose_a_span() -> None:
    async with Harness(ROUTES) as app:
        made = request({"values": {"a": "x\0y", "n": float("nan")}})
        for body in (made, as_json(made)):
            accepted(await post(app, body), JSON if isinstance(body, dict) else PROTOBUF)
        for event in logged(app):
            if isinstance(event, SpansRecorded):
                attributes = json.loads(event.spans[0].attributes)
                assert (attributes["a"], attributes["n"]) == ("x\ufffdy", None)


async def test_a_batch_sent_again_makes_the_same_run_and_items() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        for body in (request(CHILD, ROOT), request(CHILD, ROOT), as_json(request(CHILD, ROOT))):
            assert (await post(app, body, key)).status_code == 200
        first, *others = (logged(app)[index : index + 4] for index in (0, 4, 8))
        assert others == [first, first]
        records = app.log.records["telemetry"]
        assert len({record.key for record in records}) == 1
        assert len({from_headers(record.headers).id for record in records}) == len(records)


async def test_a_trace_is_one_run_of_its_tenant_and_another_s_is_another() -> None:
    async with Harness(ROUTES) as app:
        key, stranger = app.key(), app.key(OTHER_TENANT)
        await post(app, request(CHILD), key)
        await post(app, request(ROOT), key)
        await post(app, request(ROOT), stranger)
        by_tenant: dict[str, set[str]] = {}
        for record in app.log.records["telemetry"]:
            envelope = from_headers(record.headers)
            assert record.key == envelope.stream_id.encode()
            by_tenant.setdefault(envelope.tenant, set()).add(envelope.stream_id)
        assert set(by_tenant) == {TENANT, OTHER_TENANT}
        for tenant, (run_id,) in by_tenant.items():
            assert app.signer.owns_run(tenant, run_id)


async def test_traces_of_one_batch_are_runs_of_their_own_in_one_record_of_each_kind() -> None:
    async with Harness(ROUTES) as app:
        spans = [
            {**CHAT, "trace_id": bytes([trace]) * 16, "parent_span_id": b"\x01" * 8}
            for trace in (1, 2, 1, 2, 1)
        ]
        assert (await post(app, request(*spans))).status_code == 200
        found = logged(app)
        assert [type(event) for event in found] == [LlmCallsRecorded, SpansRecorded] * 2
        assert [len(event.spans) for event in found[1::2]] == [3, 2]


@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
async def test_spans_that_cannot_be_taken_are_told_and_the_rest_is_recorded(
    media_type: str,
) -> None:
    async with Harness(ROUTES) as app:
        made = request({"trace_id": b""}, CHILD, {"span_id": b"\0" * 8})
        answer = await post(app, made if media_type == PROTOBUF else as_json(made))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == media_type
        if media_type == JSON:
            partial = answer.json()["partialSuccess"]
            told = partial["rejectedSpans"], partial["errorMessage"]
        else:
            partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
            told = str(partial.rejected_spans), partial.error_message
        assert told[0] == "2"
        assert "trace id" in told[1]
        calls, spans = logged(app)
        assert (len(calls.calls), len(spans.spans)) == (1, 1)


async def test_a_span_too_large_for_a_record_is_told_and_the_rest_is_recorded() -> None:
    async with Harness(ROUTES) as app:
        large = {"values": {"input.value": "x" * MAX_EVENT_BYTES}}
        answer = await post(app, request(large, CHILD))
        partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
        assert partial.rejected_spans == 1
        assert "0000000000000001" in partial.error_message
        assert [len(event.spans) for event in logged(app)[1:]] == [1]


async def test_a_request_of_nothing_but_refused_spans_or_of_none_logs_nothing() -> None:
    async with Harness(ROUTES) as app:
        answer = await post(app, as_json(request({"trace_id": b""})))
        assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
        accepted(await post(app, b""), PROTOBUF)
        accepted(await post(app, {}), JSON)
        assert logged(app) == []


async def test_a_large_batch_becomes_several_records_of_bounded_size() -> None:
    async with Harness(ROUTES) as app:
        chat = {**CHILD, "values": {**GEN_AI, "padding": "x" * 3000}}
        body = gzip.compress(request(*[chat] * 1200).SerializeToString())
        answer = await post(app, body, **{"Content-Encoding": "gzip"})
        accepted(answer, PROTOBUF)
        records = app.log.records["telemetry"]
        assert max(len(record.value or b"") for record in records) <= MAX_EVENT_BYTES
        for kind, name in ((LlmCallsRecorded, "calls"), (SpansRecorded, "spans")):
            events = [event for event in logged(app) if isinstance(event, kind)]
            assert len(events) > 1
            assert len({item.id for event in events for item in getattr(event, name)}) == 1200


def told(answer: httpx.Response) -> tuple[int, str, str]:
    """The code, message and reason of an error, in whichever encoding it came."""
    status = Status()
    if answer.headers["content-type"] == PROTOBUF:
        status.ParseFromString(answer.content)
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert info.metadata["request_id"] == answer.headers["x-request-id"]
        return status.code, status.message, info.reason
    assert answer.headers["content-type"] == JSON
    body = answer.json()
    return body["code"], body["message"], body["details"][0]["reason"]


MALFORMED = [
    (PROTOBUF, b"\xff", 400, "validation_error"),
    (PROTOBUF, b"\x0a\x05\x0a", 400, "validation_error"),
    (JSON, b"{", 400, "validation_error"),
    (JSON, b"", 400, "validation_error"),
    (JSON, b"[]", 400, "validation_error"),
    (JSON, b'{"resourceSpans": [{"scopeSpans": 1}]}', 400, "validation_error"),
    (JSON, b'{"resourceSpans": "\xff"}', 400, "validation_error"),
    (JSON, b'{"a": "\\ud800"}', 400, "validation_error"),
    (JSON, b"[" * 10_000, 400, "validation_error"),
    ("application/x-www-form-urlencoded", b"a=b", 415, "unsupported_media_type"),
    ("", b"{}", 415, "unsupported_media_type"),
]


@pytest.mark.parametrize(("media_type", "body", "status", "reason"), MALFORMED)
async def test_what_is_no_request_is_refused_in_the_request_s_encoding(
    media_type: str, body: bytes, status: int, reason: str
) -> None:
    async with Harness(ROUTES) as app:
        answer = await post(app, body, **{"Content-Type": media_type})
        assert answer.status_code == status
        expected = PROTOBUF if media_type == PROTOBUF else JSON
        assert answer.headers["content-type"] == expected
        code, message, found = told(answer)
        assert (code, found) == (3, reason)
        assert message
        assert logged(app) == []


async def test_parameters_of_the_content_type_change_nothing() -> None:
    async with Harness(ROUTES) as app:
        body = as_json(request(CHILD))
        answer = await post(app, body, **{"Content-Type": "Application/JSON; charset=utf-8"})
        accepted(answer, JSON)


async def test_the_limit_is_on_what_a_body_expands_to() -> None:
    async with Harness(ROUTES) as app:
        bomb = gzip.compress(b"\0" * (MAX_BODY + 1))
        for body, encoding, status in (
            (bomb, "gzip", 413),
            (b"\0" * (MAX_BODY + 1), "identity", 413),
            (b"no gzip", "gzip", 400),
            (b"", "br", 415),
        ):
            answer = await post(app, body, **{"Content-Encoding": encoding})
            assert answer.status_code == status
            assert told(answer)[0] == 3
        assert logged(app) == []


async def test_without_the_log_a_client_is_told_when_to_come_back() -> None:
    async with Harness(ROUTES) as app:
        app.log.fail_with = LogUnavailable("no broker")
        for body in (request(CHILD), as_json(request(CHILD))):
            answer = await post(app, body)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert told(answer)[::2] == (14, "log_unavailable")


async def test_over_the_rate_limit_a_client_is_told_when_to_come_back() -> None:
    changes = {"rate_limit_per_minute": 1, "rate_limit_burst": 1}
    async with Harness(ROUTES, changes=changes) as app:
        key = app.key()
        assert (await post(app, request(CHILD), key)).status_code == 200
        answer = await post(app, request(CHILD), key)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert told(answer)[::2] == (8, "rate_limited")


async def test_exporters_need_an_api_key_of_one_who_may_report() -> None:
    async with Harness(ROUTES) as app:
        key = app.key()
        bearer = {"Authorization": f"Bearer {key['X-Wax-Key']}"}
        assert (await post(app, request(CHILD), bearer)).status_code == 200
        for headers, status, code in (
            ({}, 401, 16),
            (app.human(), 403, 7),
            (app.agent(), 403, 7),
            (app.key(roles=("viewer",)), 403, 7),
        ):
            answer = await post(app, request(CHILD), headers)
            assert answer.status_code == status
            assert told(answer)[0] == code


async def test_a_trace_without_its_root_shows_its_calls_at_their_time(world: World) -> None:
    world.clock.advance(3600)
    late = request({**CHILD, "start_time_unix_nano": BEGAN + 1_000_000_000}, {**CHILD})
    for _ in range(2):
        assert (await post(world.app, late, world.key)).status_code == 200
    await world.fold()
    page = await world.read("llm-calls/")
    assert [call["created_at"] for call in page["results"]] == [
        "2025-01-15T12:00:01Z",
        "2025-01-15T12:00:00Z",
    ]
    assert [call["agent_name"] for call in page["results"]] == ["", ""]
    assert page["aggregates"]["total_tokens"] == 2 * 23
    spans = await world.clickhouse.query(
        "SELECT toUnixTimestamp64Micro(created_at) AS at FROM spans_v2 ORDER BY at"
    )
    assert [row["at"] for row in spans] == [NOON, NOON + 1_000_000]


async def test_batches_in_any_order_are_one_run_with_the_root_s_names(world: World) -> None:
    for body in (request(CHILD), request(ROOT), request({**CHILD, "span_id": b"\x05" * 8})):
        assert (await post(world.app, body, world.key)).status_code == 200
    await world.fold()
    page = await world.read("llm-calls/?agent=shipping")
    assert page["count"] == 2
    assert {call["workflow_name"] for call in page["results"]} == {"main"}
    assert len({call["run_id"] for call in page["results"]}) == 1


async def test_a_call_has_its_run_s_names_wherever_the_run_is_filed(world: World) -> None:
    keyed = {"Idempotency-Key": "once"}
    run = await world.report("start/", {"agent_name": "keyed"}, keyed)
    for run_id in (run["run_id"], await world.start("timed")):
        await world.calls(run_id, {})
    # The root begins in the six hours before those in which its call does.
    root = {**ROOT, "start_time_unix_nano": BEGAN - 1_000_000_000}
    assert (await post(world.app, request(root, CHILD), world.key)).status_code == 200
    await world.fold()
    periods = await world.clickhouse.query(f"SELECT filed_period FROM {RUN_STARTS.table}")
    assert len({row["filed_period"] for row in periods}) == 3
    page = await world.read("llm-calls/")
    assert sorted(call["agent_name"] for call in page["results"]) == ["keyed", "shipping", "timed"]
