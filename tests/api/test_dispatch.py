"""What every response has and every route does, whatever its handler."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from infra.kafka import LogUnavailable
from infra.postgres import DatabaseUnavailable
from schemas.envelope import Position
from streams.bus import OutcomeUnknown
from tests.api.harness import TENANT, Harness
from tests.api.sample import COUNTER, ROUTES, Added


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(ROUTES, deciders=[COUNTER]) as harness:
        yield harness


async def test_every_response_has_a_request_id_and_rate_limit_headers(app: Harness) -> None:
    human = app.human()
    answers = [
        await app.client.get("/api/v1/echo/1", headers=human),
        await app.client.get("/api/v1/echo/1"),
        await app.client.get("/nowhere"),
        await app.client.put("/api/v1/echo/1"),
        await app.client.get("/api/v1/bug", headers=human),
        await app.client.post("/api/v1/sums/1", content=b"{", headers=human),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 404, 405, 500, 422]
    for answer in answers:
        assert re.fullmatch(r"req_[0-9a-f]{24}", answer.headers["x-request-id"])
        for name in ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"):
            assert answer.headers[name].isdigit()
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


async def test_a_sane_request_id_of_the_client_is_kept(app: Harness) -> None:
    kept = await app.client.get("/nowhere", headers={"X-Request-Id": "trace-1/a:b=c"})
    assert kept.headers["x-request-id"] == "trace-1/a:b=c"
    for bad in ("", "x" * 129, "a b", 'a"b', "a,b"):
        answer = await app.client.get("/nowhere", headers={"X-Request-Id": bad})
        assert answer.headers["x-request-id"].startswith("req_")


async def test_the_handler_gets_path_query_and_caller(app: Harness) -> None:
    answer = await app.client.get("/api/v1/echo/a%2Fb/?tag=x&tag=y&z=1", headers=app.agent())
    told = answer.json()
    assert told["path"] == {"id": "a/b"}
    assert told["query"] == {"tag": ["x", "y"], "limit": 20}
    assert (told["actor"]["kind"], told["tenant"]) == ("agent", TENANT)
    assert told["address"] == "192.0.2.1"
    assert told["command_id"].startswith("cmd_")


async def test_neither_slash_redirects(app: Harness) -> None:
    for path in ("/waxell/v1/sums/1", "/waxell/v1/sums/1/"):
        answer = await app.client.post(path, json={"n": 1}, headers=app.key())
        assert answer.status_code == 200
        assert "location" not in answer.headers


async def test_unknown_paths_and_methods_speak_the_dialect_of_their_prefix(app: Harness) -> None:
    expected = {
        "/v1/nothing": {"code": "NOT_FOUND", "statusCode": 404},
        "/waxell/v1/nothing": {"code": "not_found", "details": {}},
        "/api/v1/compute/nothing": {"code": "not_found"},
        "/api/v1/billing/invoices/x/y": {"code": "not_found"},
    }
    for path, part in expected.items():
        answer = await app.client.get(path)
        assert answer.status_code == 404
        assert part.items() <= answer.json()["error"].items()
        assert answer.headers["content-type"] == "application/json"
    for group in ("observe", "observability", "evaluations", "prompts"):
        answer = await app.client.get(f"/api/v1/{group}/nothing")
        assert answer.json() == {"error": "There is nothing at this path"}
    for path in ("/nothing", "/api/v1/nothing", "/api/v2/keys", "/api", "/favicon.ico"):
        assert (await app.client.get(path)).json() == {"detail": "There is nothing at this path"}
    wrong = await app.client.patch("/v1/sums/1")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "DELETE, POST, OPTIONS"
    assert wrong.json()["error"]["code"] == "METHOD_NOT_ALLOWED"


async def test_head_is_get_without_a_body(app: Harness) -> None:
    headers = app.human()
    got = await app.client.get("/api/v1/echo/1", headers={**headers, "X-Request-Id": "r"})
    head = await app.client.head("/api/v1/echo/1", headers={**headers, "X-Request-Id": "r"})
    assert head.status_code == 200
    assert head.content == b""
    assert abs(int(head.headers["content-length"]) - len(got.content)) <= 1


async def test_options_says_what_is_allowed_without_a_credential_or_a_count(app: Harness) -> None:
    answer = await app.client.options("/v1/sums/1")
    assert answer.status_code == 204
    assert answer.headers["allow"] == "DELETE, POST, OPTIONS"
    assert (await app.client.options("/nothing")).status_code == 404


async def test_a_write_tells_its_position_and_records_the_request(app: Harness) -> None:
    answer = await app.client.post("/v1/sums/1", json={"n": 4}, headers=app.human())
    assert answer.status_code == 201
    assert answer.json() == {"data": {"total": 4}}
    assert answer.headers["x-log-position"] == "events:0:1"
    assert "idempotency-replayed" not in answer.headers
    (request,) = app.bus.requests
    assert (request.tenant, request.stream_id, request.actor.kind) == (TENANT, "1", "user")
    assert request.correlation_id == answer.headers["x-request-id"]
    assert request.fingerprint == ""
    assert app.bus.payloads() == [Added(4)]


async def test_a_telemetry_write_sets_position_status_and_headers(app: Harness) -> None:
    answer = await app.client.post("/api/v1/observe/telemetry/", json={}, headers=app.key())
    assert answer.status_code == 202
    assert answer.headers["x-log-position"] == "telemetry:2:41"
    assert answer.headers["x-extra"] == "1"


async def test_no_content_has_none(app: Harness) -> None:
    answer = await app.client.delete("/v1/sums/1", headers=app.agent())
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers


@pytest.mark.parametrize(
    ("path", "credential", "status", "told"),
    [
        (
            "/v1/sums/1",
            "human",
            422,
            {
                "error": {
                    "code": "TOO_MUCH",
                    "message": "over a hundred",
                    "statusCode": 422,
                    "details": {"total": 0},
                }
            },
        ),
        ("/api/v1/observe/sums/1", "key", 422, {"error": "over a hundred"}),
        (
            "/waxell/v1/sums/1",
            "key",
            422,
            {"error": {"code": "too_much", "message": "over a hundred", "details": {"total": 0}}},
        ),
        (
            "/api/v1/keys/1",
            "key",
            422,
            {
                "error": {
                    "code": "too_much",
                    "message": "over a hundred",
                    "request_id": "r-1",
                    "details": {"total": 0},
                }
            },
        ),
        (
            "/api/v1/sums/1",
            "human",
            422,
            {"detail": [{"loc": ["body"], "msg": "over a hundred", "type": "too_much"}]},
        ),
    ],
)
async def test_a_refusal_in_each_dialect(
    app: Harness, path: str, credential: str, status: int, told: object
) -> None:
    headers = {**getattr(app, credential)(), "X-Request-Id": "r-1"}
    answer = await app.client.post(path, json={"n": 101}, headers=headers)
    assert (answer.status_code, answer.json()) == (status, told)
    assert answer.headers["x-log-position"]


async def test_a_command_that_fails_is_a_500_with_its_incident(app: Harness) -> None:
    answer = await app.client.post("/waxell/v1/sums/1", json={"n": 13}, headers=app.key())
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "internal_error"
    assert error["details"]["incident_id"].startswith("inc_")
    assert "thirteen" not in answer.text


async def test_a_bug_is_a_500_that_tells_nothing_but_its_incident(
    app: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await app.client.get("/api/v1/bug", headers=app.human())
    assert answer.status_code == 500
    incident = answer.json()["incident_id"]
    assert "secret" not in answer.text
    (record,) = [item for item in caplog.records if item.message == "request failed"]
    assert record.__dict__["incident"] == incident
    assert record.__dict__["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutcomeUnknown("cmd_1"), "outcome_unknown"),
        (LogUnavailable("x"), "log_unavailable"),
        (DatabaseUnavailable("x"), "database_unavailable"),
    ],
)
async def test_what_is_away_is_a_503_that_says_when_to_come_back(
    app: Harness, error: Exception, code: str
) -> None:
    app.bus.fail_with = error
    answer = await app.client.post("/waxell/v1/sums/1", json={"n": 1}, headers=app.key())
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["error"]["code"] == code


async def test_an_unknown_outcome_names_the_command_in_every_dialect(app: Harness) -> None:
    app.bus.fail_with = OutcomeUnknown("cmd_1")
    for path, headers in (
        ("/v1/sums/1", app.human()),
        ("/api/v1/observe/sums/1", app.key()),
        ("/waxell/v1/sums/1", app.key()),
        ("/api/v1/keys/1", app.key()),
        ("/api/v1/sums/1", app.human()),
    ):
        answer = await app.client.post(path, json={"n": 1}, headers=headers)
        assert answer.status_code == 503
        assert '"command_id":"cmd_1"' in answer.text


async def test_a_handler_s_own_problem_and_its_404(app: Harness) -> None:
    answer = await app.client.get("/waxell/v1/own", headers=app.key())
    assert answer.status_code == 402
    assert answer.json()["error"] == {
        "code": "quota_exceeded",
        "message": "n: no more",
        "details": {"limit": 3, "field": "n"},
    }
    absent = await app.client.get("/v1/missing/1", headers=app.agent())
    assert (absent.status_code, absent.json()["error"]["message"]) == (404, "No such thing")


async def test_who_is_let_in(app: Harness) -> None:
    wrong = await app.client.post("/api/v1/sums/1", json={"n": 1}, headers=app.agent())
    assert wrong.status_code == 403
    assert wrong.json() == {"detail": "This is for user, not agent"}
    assert (await app.client.get("/api/v1/admin", headers=app.human())).status_code == 200
    reader = app.human(roles=("reader",))
    assert (await app.client.get("/api/v1/admin", headers=reader)).status_code == 403
    partly = app.key(scopes=("read",))
    lacking = await app.client.get("/api/v1/scoped", headers=partly)
    assert lacking.json() == {"detail": "The credential lacks the scope write"}
    fully = app.key(scopes=("read", "write", "more"))
    assert (await app.client.get("/api/v1/scoped", headers=fully)).status_code == 200


async def test_the_credential_is_looked_at_before_the_body(app: Harness) -> None:
    bad = b"{not json"
    assert (await app.client.post("/v1/sums/1", content=bad)).status_code == 401
    wrong = await app.client.post("/v1/sums/1", content=bad, headers=app.key())
    assert wrong.status_code == 403


async def test_public_routes_look_at_no_credential(app: Harness) -> None:
    answer = await app.client.post("/api/v1/open", headers={"Authorization": "Bearer nonsense"})
    assert answer.status_code == 200
    assert answer.json()["actor"]["kind"] == "anonymous"


async def test_a_query_for_a_position_waits_or_says_so(app: Harness) -> None:
    path, headers = "/api/v1/observability/views", app.key()
    app.analytics.position = Position("telemetry", 1, 40)
    ahead = await app.client.get(f"{path}?min_position=telemetry:1:40", headers=headers)
    assert ahead.status_code == 200
    behind = await app.client.get(f"{path}?min_position=telemetry:1:41", headers=headers)
    assert (behind.status_code, behind.headers["retry-after"]) == (409, "1")
    by_header = {**headers, "X-Min-Log-Position": "telemetry:1:41"}
    assert (await app.client.get(path, headers=by_header)).status_code == 409
    for bad in ("nonsense", "telemetry:x:1", ":1:1", "telemetry:1"):
        answer = await app.client.get(path, params={"min_position": bad}, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("min_position: ")


async def test_a_response_begun_and_broken_off_is_not_answered_twice(app: Harness) -> None:
    async def breaks(message: dict[str, object]) -> None:
        raise OSError("gone")

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/nowhere",
        "query_string": b"",
        "headers": [],
        "client": None,
    }

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    with pytest.raises(OSError, match="gone"):
        await app.app(scope, receive, breaks)  # type: ignore[arg-type]


async def test_websockets_are_turned_away(app: Harness) -> None:
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await app.app({"type": "websocket"}, None, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1000}]


async def test_the_client_library_sees_plain_json(app: Harness) -> None:
    answer: httpx.Response = await app.client.get("/api/v1/echo/ü", headers=app.human())
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["path"] == {"id": "ü"}
