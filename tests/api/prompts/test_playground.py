"""Prompts tried over HTTP on a real server of OpenAI's protocol, through the real client."""

import json
import logging
import threading
from typing import Any

import httpx
import pytest

from api.prompts.playground import VARIANTS_MAX
from commands.prompts.content import hash_of
from infra.completions import AT_ONCE_OF_ONE_MAX, Completions
from infra.ids import Signer
from infra.kafka import LogUnavailable
from infra.postgres import DatabaseUnavailable
from schemas.envelope import Envelope, from_headers
from schemas.observability.run import LlmCallsRecorded, RunCompleted, RunStarted
from streams.telemetry import codec
from tests.api.harness import OTHER_TENANT, TENANT
from tests.api.prompts.client import CHAT
from tests.api.prompts.conftest import Prompts
from tests.integration.openai_server import (
    ANSWER,
    SERVED_MODEL,
    TOKENS_IN,
    TOKENS_OUT,
    Asked,
    Sent,
    answered,
    completion,
    json_sent,
    openai_server,
    refused,
)

KEY = "sk-0123456789abcdef-4f2a"
COST = (TOKENS_IN * 150_000 + TOKENS_OUT * 600_000) / 10**12  # gpt-4o-mini, 0.15 and 0.60 a million
VARIABLES = {"company": "Acme", "user_query": "When?"}


class Playground:
    """A playground whose provider is a server here, and does what a test says."""

    def __init__(self, prompts: Prompts) -> None:
        self.prompts, self.harness = prompts, prompts.harness
        self.admin = prompts.harness.human()
        self.answering: Any = answered
        self.asked: list[Asked] = []
        self.url = ""

    def answer(self, asked: Asked) -> Sent:
        self.asked.append(asked)
        sent: Sent = self.answering(asked)
        return sent

    async def provider(self, method: str, body: Any = None, headers: Any = None) -> httpx.Response:
        path = "playground/provider/"
        return await self.prompts.call(method, path, body, headers or self.admin)

    async def set(self, key: str = KEY, headers: Any = None) -> Any:
        body = {"base_url": self.url, "api_key": key}
        answer = await self.provider("PUT", body, headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def run(self, content: Any = "Hi", headers: Any = None, **more: Any) -> httpx.Response:
        body = {"content": content, **more}
        return await self.prompts.call("POST", "playground/", body, headers)

    async def compare(self, *variants: Any) -> httpx.Response:
        return await self.prompts.call("POST", "playground/compare/", {"variants": variants})

    def told(self) -> list[tuple[Envelope, Any]]:
        """What went to the telemetry log, in order."""
        return [
            (from_headers(record.headers), codec().decode(record.value))
            for record in self.harness.log.records.get("telemetry", [])
        ]


@pytest.fixture
async def playground(prompts: Prompts) -> Any:
    made = Playground(prompts)
    prompts.harness.services.completions = Completions(["127.0.0.0/8"])
    with openai_server(made.answer) as made.url:
        yield made
        await prompts.harness.services.completions.close()


async def test_a_prompt_is_tried_with_its_values_in(playground: Playground) -> None:
    await playground.set()
    config = {"model": "gpt-4o", "temperature": 0, "max_tokens": 7}
    answer = await playground.run(CHAT, config=config, variables=VARIABLES)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found == {
        "output": ANSWER,
        "model": "gpt-4o",
        "tokens_in": TOKENS_IN,
        "tokens_out": TOKENS_OUT,
        "cost": (TOKENS_IN * 2_500_000 + TOKENS_OUT * 10_000_000) / 10**12,
        "latency_ms": found["latency_ms"],
    }
    assert 0 <= found["latency_ms"] < 60_000
    ((body, headers),) = playground.asked
    assert body == {
        **config,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant for Acme."},
            {"role": "user", "content": "When?"},
        ],
    }
    assert headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"config": None, "variables": None},
        {"config": {}, "variables": {}},
        {"config": {"model": None, "temperature": None, "max_tokens": None}},
    ],
)
async def test_what_is_left_out_has_the_defaults(playground: Playground, more: Any) -> None:
    await playground.set()
    answer = await playground.run("Hi", **more)
    assert (answer.json()["model"], answer.json()["cost"]) == ("gpt-4o-mini", COST)
    assert playground.asked[0].body == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.7,
        "max_tokens": 1024,
    }


async def test_values_are_put_in_as_they_came(playground: Playground) -> None:
    await playground.set()
    body = (
        b'{"content": "{{text}}|{{n}}|{{big}}|{{list}}|{{none}}|{{yes}}", "variables": '
        b'{"text": "a\\"\\u00e4", "n": 1.0, "big": 1' + b"0" * 400 + b', "list": [1, {"a": "b"}],'
        b' "none": null, "yes": true}}'
    )
    answer = await playground.prompts.client.post(
        "/api/v1/prompts/playground/", content=body, headers=playground.prompts.builder
    )
    assert answer.status_code == 200, answer.text
    said = playground.asked[0].body["messages"][0]["content"]
    assert said == f'a"ä|1.0|1{"0" * 400}|[1, {{"a": "b"}}]|null|true'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "content: "),
        ({"content": None}, "content: Field required"),
        ({"content": 7}, "content: Expected a text, or a list of messages"),
        ({"content": {"role": "user"}}, "content: Expected a text, or a list of messages"),
        ({"content": []}, "content: Expected a text, or a list of messages"),
        (
            {"content": "{{a}} {{b}}", "variables": {"b": ""}},
            "variables: No value is given for {{a}}",
        ),
        ({"content": "x", "variables": []}, "variables: Expected `object`"),
        ({"content": "x", "config": {"temperature": 2.1}}, "config.temperature: "),
        ({"content": "x", "config": {"max_tokens": 0}}, "config.max_tokens: "),
        ({"content": "x", "config": {"model": ""}}, "config.model: "),
    ],
)
async def test_a_request_that_can_t_be_meant_is_refused_by_its_field(
    playground: Playground, body: Any, error: str
) -> None:
    await playground.set()
    answer = await playground.prompts.call("POST", "playground/", body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)
    assert (playground.asked, playground.told()) == ([], [])


async def test_values_that_make_a_prompt_huge_are_413(playground: Playground) -> None:
    await playground.set()
    answer = await playground.run("{{v}}" * 10_000, variables={"v": "x" * 10_000})
    assert (answer.status_code, playground.asked) == (413, [])
    assert answer.json()["error"].startswith("content: At most")


async def test_without_a_provider_it_says_who_sets_one_and_how(playground: Playground) -> None:
    answer = await playground.run()
    assert answer.status_code == 400
    assert "PUT /api/v1/prompts/playground/provider/" in answer.json()["error"]
    await playground.set()
    assert (await playground.run()).status_code == 200
    assert (await playground.provider("DELETE")).status_code == 204
    assert (await playground.run()).status_code == 400
    assert (await playground.compare({"content": "x"})).status_code == 400
    assert len(playground.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_a_provider_s_refusal_is_a_502_with_its_words(
    playground: Playground, status: int
) -> None:
    await playground.set()
    playground.answering = lambda asked: refused(status, "It will not do")
    answer = await playground.run()
    assert answer.status_code == 502
    assert answer.json() == {"error": f"The provider answered {status}: It will not do"}


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (Sent(200, b"hello", "text/plain"), "The provider's answer is no chat completion"),
        (refused(401, f"Wrong key {KEY}"), "The provider answered 401: Wrong key [the key]"),
    ],
)
async def test_whatever_a_provider_sends_is_told_without_its_key(
    playground: Playground, sent: Sent, error: str
) -> None:
    await playground.set()
    playground.answering = lambda asked: sent
    answer = await playground.run()
    assert (answer.status_code, answer.json()) == (502, {"error": error})


async def test_a_provider_that_does_not_answer_is_a_502_in_time(playground: Playground) -> None:
    await playground.set()
    playground.harness.services.completions = Completions(["127.0.0.0/8"], seconds=0.3)
    ended = threading.Event()
    playground.answering = lambda asked: Sent(200, str(ended.wait(60)).encode())
    try:
        answer = await playground.run()
    finally:
        ended.set()
        await playground.harness.services.completions.close()
    assert (answer.status_code, answer.json()) == (
        502,
        {"error": "The provider did not answer within 0.3 s"},
    )


async def test_a_provider_at_a_private_address_is_not_asked(playground: Playground) -> None:
    await playground.set()
    playground.harness.services.completions = Completions()
    answer = await playground.run()
    await playground.harness.services.completions.close()
    assert (answer.status_code, playground.asked) == (502, [])
    assert "is not public" in answer.json()["error"]


async def test_a_try_is_a_run_of_the_playground(playground: Playground) -> None:
    await playground.set()
    answer = await playground.run(CHAT, variables=VARIABLES)
    (begun, started), (called, calls), (ended, completed) = playground.told()
    assert {item.stream for item in (begun, called, ended)} == {begun.stream}
    run_id = begun.stream_id
    assert playground.harness.signer.owns_run(TENANT, run_id)
    assert len({item.id for item in (begun, called, ended)}) == 3
    assert begun.actor.kind == "user"
    assert started == RunStarted(
        agent_name="playground",
        workflow_name="run",
        workflow_id=f"wf_{run_id[4:30]}",
        started_at=started.started_at,
        user_id=begun.actor.id,
    )
    assert isinstance(calls, LlmCallsRecorded)
    (call,) = calls.calls
    assert (call.model, call.tokens_in, call.tokens_out) == ("gpt-4o-mini", TOKENS_IN, TOKENS_OUT)
    assert (call.task, call.prompt_hash) == ("playground", hash_of(CHAT))
    assert (call.prompt_preview, call.response_preview) == ("When?", ANSWER)
    assert (call.cost, call.cost_source, call.price_model) == (None, "default", "gpt-4o-mini")
    assert call.whole_cost_pico == TOKENS_IN * 150_000 + TOKENS_OUT * 600_000
    assert json.loads(call.metadata) == {
        "temperature": 0.7,
        "max_tokens": 1024,
        "latency_ms": answer.json()["latency_ms"],
        "served_model": SERVED_MODEL,
        "finish_reason": "stop",
    }
    assert completed == RunCompleted(status="success", completed_at=completed.completed_at)
    assert answer.headers["x-log-position"] == "telemetry:0:2"


async def test_a_key_s_try_has_no_user(playground: Playground) -> None:
    await playground.set()
    answer = await playground.run(headers=playground.harness.key(roles=["developer"]))
    assert answer.status_code == 200
    begun, started = playground.told()[0]
    assert (begun.actor.kind, started.user_id) == ("api_key", "")


async def test_a_try_that_failed_is_a_run_with_its_error_and_no_call(
    playground: Playground,
) -> None:
    await playground.set()
    playground.answering = lambda asked: refused(429, "Slow down")
    answer = await playground.run()
    (_, started), (_, completed) = playground.told()
    assert isinstance(started, RunStarted)
    assert isinstance(completed, RunCompleted)
    assert (completed.status, completed.error) == ("error", answer.json()["error"])
    assert answer.headers["x-log-position"] == "telemetry:0:1"


async def test_a_model_without_a_price_and_a_server_without_counts_cost_nothing(
    playground: Playground,
) -> None:
    await playground.set()
    playground.answering = lambda asked: json_sent({**completion(), "usage": None})
    answer = await playground.run(config={"model": "nobody-knows"})
    assert (answer.json()["tokens_in"], answer.json()["cost"]) == (0, 0.0)
    (calls,) = [event for _, event in playground.told() if isinstance(event, LlmCallsRecorded)]
    assert calls.calls[0].cost_source == "unpriced"


async def test_the_same_request_again_asks_again_and_counts_again(playground: Playground) -> None:
    await playground.set()
    headers = {**playground.prompts.builder, "Idempotency-Key": "again"}
    answers = [await playground.run(headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    told = playground.told()
    assert len(playground.asked) == 2
    assert len({envelope.id for envelope, _ in told}) == len(told) == 6
    assert len({envelope.stream_id for envelope, _ in told}) == 2


async def test_nothing_is_asked_that_cannot_be_recorded(playground: Playground) -> None:
    await playground.set()
    playground.harness.log.fail_with = LogUnavailable("away")
    assert (await playground.run()).status_code == 503
    assert (await playground.compare({"content": "x"})).status_code == 503
    playground.harness.log.fail_with = None
    playground.harness.reads.fail_with = DatabaseUnavailable("away")
    assert (await playground.run()).status_code == 503
    assert (playground.asked, playground.told()) == ([], [])


# Comparing.


async def test_variants_are_tried_at_the_same_time_and_answer_in_their_order(
    playground: Playground,
) -> None:
    await playground.set()
    together = threading.Barrier(3)

    def answering(asked: Asked) -> Sent:
        together.wait(60)  # none is answered before all have come
        return json_sent(completion(asked.body["messages"][0]["content"].upper()))

    playground.answering = answering
    models = ["gpt-4o-mini", "gpt-4o", "nobody-knows"]
    answer = await playground.compare(
        *(
            {"content": "{{x}}", "config": {"model": model}, "variables": {"x": f"v{number}"}}
            for number, model in enumerate(models)
        )
    )
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [(item["output"], item["model"]) for item in results] == [
        ("V0", "gpt-4o-mini"),
        ("V1", "gpt-4o"),
        ("V2", "nobody-knows"),
    ]
    assert [item["cost"] > 0 for item in results] == [True, True, False]
    assert set(results[0]) == {
        "output",
        "model",
        "tokens_in",
        "tokens_out",
        "cost",
        "latency_ms",
    }


async def test_a_slow_variant_does_not_hold_the_others_up(
    playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    await playground.set()
    log, others_ended = playground.harness.log, threading.Event()
    append = log.append

    async def noting(*arguments: Any) -> Any:
        placed = await append(*arguments)
        if sum(isinstance(event, RunCompleted) for _, event in playground.told()) == 2:
            others_ended.set()
        return placed

    def answering(asked: Asked) -> Sent:
        # The slow one answers when the runs of the others have been recorded to their ends.
        assert asked.body["model"] != "slow" or others_ended.wait(60)
        return answered(asked)

    monkeypatch.setattr(log, "append", noting)
    playground.answering = answering
    answer = await playground.compare(
        *({"content": "x", "config": {"model": model}} for model in ("slow", "a", "b"))
    )
    assert [item["output"] for item in answer.json()["results"]] == [ANSWER] * 3


async def test_a_variant_that_fails_takes_no_other_with_it(playground: Playground) -> None:
    await playground.set()

    def answering(asked: Asked) -> Sent:
        if asked.body["model"] == "bad":
            return refused(404, "No such model")
        return answered(asked)

    playground.answering = answering
    answer = await playground.compare(
        *({"content": "x", "config": {"model": model}} for model in ("bad", "good"))
    )
    assert answer.status_code == 200
    bad, good = answer.json()["results"]
    assert bad == {
        "output": "",
        "model": "bad",
        "tokens_in": 0,
        "tokens_out": 0,
        "cost": 0.0,
        "latency_ms": bad["latency_ms"],
        "error": "The provider answered 404: No such model",
    }
    assert (good["output"], "error" in good) == (ANSWER, False)
    ends = [event for _, event in playground.told() if isinstance(event, RunCompleted)]
    assert sorted(event.status for event in ends) == ["error", "success"]
    starts = [event for _, event in playground.told() if isinstance(event, RunStarted)]
    assert {event.workflow_name for event in starts} == {"compare"}


@pytest.mark.parametrize(
    ("variants", "error"),
    [
        ([], "variants: Expected `array` of length >= 1"),
        ([{"content": "x"}] * (VARIANTS_MAX + 1), "variants: Expected `array` of length <= 10"),
        ([{"content": "x"}, {}], "variants[1].content: Field required"),
        ([{"content": "x"}, {"content": "{{a}}"}], "variants[1].variables: No value is given"),
        ([{"content": "x"}, {"content": 7}], "variants[1].content: Expected a text"),
        ([{"content": "x", "config": {"max_tokens": 0}}], "variants[0].config.max_tokens: "),
        ([{"content": "x", "variables": 1}], "variants[0].variables: Expected `object`"),
    ],
)
async def test_variants_that_can_t_be_meant_are_refused_before_any_is_asked(
    playground: Playground, variants: Any, error: str
) -> None:
    await playground.set()
    answer = await playground.compare(*variants)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)
    assert playground.asked == []


async def test_ten_variants_are_answered(playground: Playground) -> None:
    await playground.set()
    answer = await playground.compare(*[{"content": "x"}] * VARIANTS_MAX)
    assert len(answer.json()["results"]) == len(playground.asked) == VARIANTS_MAX


async def test_more_tries_than_there_is_room_for_are_503_and_try_again(
    playground: Playground,
) -> None:
    await playground.set()
    with playground.harness.services.completions.reserved(TENANT, AT_ONCE_OF_ONE_MAX - 1):
        full = await playground.compare({"content": "x"}, {"content": "x"})
        assert (full.status_code, full.headers["retry-after"]) == (503, "5")
        assert playground.told() == []
        assert (await playground.run()).status_code == 200
    assert (await playground.compare({"content": "x"}, {"content": "x"})).status_code == 200


# The provider.


async def test_a_provider_is_shown_with_no_more_of_its_key_than_a_hint(
    playground: Playground,
) -> None:
    assert (await playground.provider("GET")).status_code == 404
    made = await playground.set()
    assert made == {
        "base_url": playground.url,
        "key_hint": "4f2a",
        "set_by": made["set_by"],
        "set_at": "2025-01-15T12:00:00Z",
    }
    assert made["set_by"].endswith("@weir.test")
    assert (await playground.provider("GET")).json() == made
    assert (await playground.provider("DELETE")).status_code == 204
    assert (await playground.provider("DELETE")).status_code == 404
    assert (await playground.set("sk-short"))["key_hint"] == ""


async def test_the_key_is_in_clear_in_no_command_event_row_or_log(
    playground: Playground, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await playground.set()
    assert (await playground.run()).status_code == 200
    bus = playground.harness.bus
    kept = f"{bus.requests} {bus.events} {playground.told()} {caplog.text}"
    assert KEY not in kept and KEY[3:12] not in kept
    (event,) = bus.payloads()
    assert event.key_hint == "4f2a"
    signer = playground.harness.signer
    context = ("prompts.playground", TENANT, playground.url)
    assert signer.unseal(event.sealed_key, *context) == KEY


async def test_a_key_that_is_put_beside_another_address_or_tenant_does_not_open(
    playground: Playground,
) -> None:
    await playground.set()
    ((_, row),) = playground.prompts.tables.rows["playground_providers"].items()
    row["base_url"] = playground.url.replace("127.0.0.1", "localhost")
    answer = await playground.run()
    assert (answer.status_code, playground.asked) == (400, [])
    assert "set the provider again" in answer.json()["error"]


async def test_a_key_sealed_under_another_master_secret_has_to_be_set_again(
    playground: Playground,
) -> None:
    await playground.set()
    playground.harness.services.signer = Signer(b"x" * 32)
    answer = await playground.run()
    assert answer.status_code == 400
    assert "WEIR_SECRET_KEY" in answer.json()["error"]
    await playground.set()
    assert (await playground.run()).status_code == 200


async def test_another_tenant_s_provider_is_not_used(playground: Playground) -> None:
    await playground.set()
    other = playground.harness.human(OTHER_TENANT)
    assert (await playground.run(headers=other)).status_code == 400
    assert (await playground.provider("GET", headers=other)).status_code == 404
    assert (await playground.provider("DELETE", headers=other)).status_code == 404
    await playground.set("sk-of-the-other-tenant", headers=other)
    assert (await playground.run()).status_code == 200
    assert (await playground.run(headers=other)).status_code == 200
    assert [asked.headers["authorization"] for asked in playground.asked] == [
        f"Bearer {KEY}",
        "Bearer sk-of-the-other-tenant",
    ]


async def test_admins_set_the_provider_builders_try_prompts_and_viewers_neither(
    playground: Playground,
) -> None:
    await playground.set()
    harness, body = playground.harness, {"base_url": playground.url, "api_key": KEY}
    statuses = {}
    for role in ("admin", "developer", "viewer", "billing", "compute"):
        person, key = harness.human(roles=[role]), harness.key(roles=[role])
        for headers in (person, key):
            statuses[role] = (
                (await playground.run(headers=headers)).status_code,
                (await playground.provider("GET", headers=headers)).status_code,
                (await playground.provider("PUT", body, headers)).status_code,
            )
    none = (403, 403, 403)
    assert statuses == {
        "admin": (200, 200, 200),
        "developer": (200, 403, 403),
        "viewer": none,
        "billing": none,
        "compute": none,
    }
    builder = playground.prompts.builder
    assert (await playground.provider("DELETE", headers=builder)).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"api_key": "k"}, "base_url"),
        ({"base_url": "https://llm.example"}, "api_key"),
        *(
            ({"base_url": url, "api_key": "k"}, "base_url")
            for url in (
                "",
                "llm.example",
                "ftp://llm.example",
                "https://",
                "https://user:pass@llm.example",
                "https://llm.example?x=1",
                "https://llm.example/v1?x=1",
                "https://llm.example/v1#x",
                "https://llm.example:0/v1",
                "https://llm.example:70000/v1",
                "https://llm.example /v1",
                "https://[::1/v1",
                "https://[nonsense]/v1",
                "https://llm.example/v1\n",
                "https://ä.example/v1",
                "https://llm.example/" + "x" * 1_000,
            )
        ),
        *(
            ({"base_url": "https://llm.example", "api_key": key}, "api_key")
            for key in ("", "a b", "key\n", "k\r\nX-Evil: 1", "schlüssel", "x" * 1_001, 7, None)
        ),
    ],
)
async def test_a_provider_that_can_t_be_meant_is_refused_by_its_field(
    playground: Playground, body: Any, field: str
) -> None:
    answer = await playground.provider("PUT", body)
    assert answer.status_code == 400
    assert field in answer.json()["error"]
    assert playground.harness.bus.requests == []
