"""Prompts tried over real Kafka, Postgres and ClickHouse: seen as calls with their price, and the
provider's key in none of them."""

import asyncio
import socket
import threading
import time
from typing import Any

import httpx
import psycopg
import pytest

from api.provision import connected, provision_tenant
from infra.bootstrap import Credentials
from infra.config import Settings
from infra.ids import new_id
from schemas.topics import topics
from tests.integration.openai_server import (
    ANSWER,
    TOKENS_IN,
    TOKENS_OUT,
    Asked,
    Sent,
    answered,
    openai_server,
    refused,
)
from tests.integration.served import Served, headers_of
from tests.loops import read_topic

KEY = "sk-0123456789abcdef-4f2a"
PLAYGROUND = "/api/v1/prompts/playground/"
CALLS = "/api/v1/observability/llm-calls/"
CONTENT = "Say {{word}}"
# All that keep something of a tenant: answers go to whoever asked, and are gone then.
TOPICS = [name for name in topics() if name != "replies"]
COST = (TOKENS_IN * 150_000 + TOKENS_OUT * 600_000) / 10**12


async def _tenant(settings: Settings) -> Credentials:
    async with connected(settings) as installation:
        return await provision_tenant(
            installation, name="Tries", email=f"{new_id('try')}@acme.example"
        )


class Person:
    """An admin of a tenant of their own."""

    def __init__(self, served: Served) -> None:
        self.made = asyncio.run(_tenant(served.settings))
        self.client = httpx.Client(
            base_url=served.url, timeout=60, headers=headers_of(self.made)["user"]
        )

    def send(self, method: str, path: str, body: Any = None, status: int = 200) -> httpx.Response:
        answer = self.client.request(method, path, json=body)
        assert answer.status_code == status, answer.text
        return answer

    def set(self, url: str, key: str = KEY) -> None:
        body = {"base_url": url, "api_key": key}
        self.send("PUT", f"{PLAYGROUND}provider/", body)

    def calls(self, count: int, **query: Any) -> list[Any]:
        """The tenant's calls, when there are so many; the newest last."""
        query = {"sort": "created_at", **query}
        deadline = time.monotonic() + 30  # no position stands for the runs of a comparison
        while time.monotonic() < deadline:
            answer = self.client.get(CALLS, params=query)
            assert answer.status_code == 200, answer.text
            if answer.json()["count"] >= count:
                break
        found: list[Any] = answer.json()["results"]
        assert len(found) == count
        return found


@pytest.fixture
def person(served: Served) -> Person:
    return Person(served)


def test_tries_are_calls_of_the_tenant_with_the_price_used(person: Person) -> None:
    prompt = {"name": "tried", "content": CONTENT}
    prompt_id = person.send("POST", "/api/v1/prompts/", prompt, 201).json()["id"]
    own = {"input_cost_per_million": 1, "output_cost_per_million": 2}
    answer = person.client.put(
        "/api/v1/observe/model-costs/our-own/",
        json=own,
        headers={"X-Wax-Key": person.made.api_key, "Authorization": ""},
    )
    assert answer.status_code == 200, answer.text
    own_cost = (TOKENS_IN * 1_000_000 + TOKENS_OUT * 2_000_000) / 10**12
    with openai_server() as url:
        person.set(url)
        asked: dict[str, Any] = {"content": CONTENT, "variables": {"word": "yes"}}
        first = person.send("POST", PLAYGROUND, asked)
        asked["config"] = {"model": "our-own"}
        second = person.send("POST", PLAYGROUND, asked)
    assert [answer.json()["cost"] for answer in (first, second)] == [COST, own_cost]
    assert first.json()["output"] == ANSWER
    me = person.send("GET", "/api/v1/auth/me").json()["user_id"]
    for made, model, cost, source in (
        (first, "gpt-4o-mini", COST, "default"),
        (second, "our-own", own_cost, "override"),
    ):
        shown = {"min_position": made.headers["x-log-position"], "model": model}
        (call,) = person.client.get(CALLS, params=shown).json()["results"]
        assert (call["agent_name"], call["workflow_name"]) == ("playground", "run")
        assert (call["cost"], call["prompt_preview"]) == (cost, "Say yes")
        detail = person.send("GET", f"{CALLS}{call['id']}/").json()
        assert detail["pricing"]["source"] == source
    users = person.client.get("/api/v1/observability/users/").json()["results"]
    assert [user["user_id"] for user in users] == [me]
    usage = person.send("GET", f"/api/v1/prompts/{prompt_id}/metrics/").json()["versions"][0]
    assert (usage["call_count"], usage["total_cost"]) == (2, COST + own_cost)


def test_a_try_is_recorded_although_whoever_asked_has_gone(served: Served, person: Person) -> None:
    asked, gone = threading.Event(), threading.Event()

    def answering(question: Asked) -> Sent:
        asked.set()
        assert gone.wait(60)
        return answered(question)

    body = b'{"content": "x"}'
    head = [f"POST {PLAYGROUND} HTTP/1.1", "Host: weir.test", f"Content-Length: {len(body)}"]
    head.append(f"Authorization: Bearer {person.made.admin_token}")
    with openai_server(answering) as url:
        person.set(url)
        address = (served.settings.host, served.settings.port)
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
            assert asked.wait(60)
        gone.set()
        (call,) = person.calls(1)
    assert call["response_preview"] == ANSWER


def test_variants_that_are_compared_are_calls_too_but_for_those_that_failed(
    person: Person,
) -> None:
    def answering(asked: Asked) -> Sent:
        return refused(404, "No such model") if asked.body["model"] == "bad" else answered(asked)

    variants = [{"content": "x", "config": {"model": model}} for model in ("a", "bad", "b")]
    with openai_server(answering) as url:
        person.set(url)
        answer = person.send("POST", f"{PLAYGROUND}compare/", {"variants": variants})
    outputs = [result["output"] for result in answer.json()["results"]]
    assert outputs == [ANSWER, "", ANSWER]
    calls = person.calls(2, agent="playground")
    assert {call["model"] for call in calls} == {"a", "b"}
    assert {call["workflow_name"] for call in calls} == {"compare"}


async def test_the_key_is_in_clear_on_no_topic_in_no_table_and_in_no_log(served: Served) -> None:
    person = await asyncio.to_thread(Person, served)
    echo = refused(401, f"Wrong key: {KEY}")
    with openai_server(lambda asked: echo) as url:
        await asyncio.to_thread(person.set, url)
        answer = await asyncio.to_thread(
            person.send, "POST", PLAYGROUND, {"content": "x"}, status=502
        )
    assert answer.json() == {"error": "The provider answered 401: Wrong key: [the key]"}
    settings = served.settings
    kept = {name: repr(await read_topic(settings, name, person.made.tenant_id)) for name in TOPICS}
    for name in ("commands", "events", "audit", "outcomes", "telemetry"):
        assert person.made.tenant_id in kept[name], name
    with psycopg.connect(settings.database_url) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(f'SELECT t::text FROM "{table}" AS t'.encode()).fetchall()
            kept[table] = "\n".join(row for (row,) in rows)
    assert person.made.tenant_id in kept["playground_providers_v1"]
    kept["the roles' log"] = served.log.read_text()
    for secret in (KEY, KEY[3:14], KEY.encode().hex()):
        assert [name for name, text in kept.items() if secret in text] == []


def test_each_tenant_has_a_provider_of_its_own(served: Served, person: Person) -> None:
    other = Person(served)
    seen: list[str] = []

    def answering(asked: Asked) -> Sent:
        seen.append(asked.headers["authorization"])
        return answered(asked)

    with openai_server(answering) as url:
        person.set(url)
        refusal = other.send("POST", PLAYGROUND, {"content": "x"}, status=400)
        assert "No provider is set" in refusal.json()["error"]
        other.send("GET", f"{PLAYGROUND}provider/", status=404)
        other.send("DELETE", f"{PLAYGROUND}provider/", status=404)
        other.set(url, "sk-other")
        for one in (person, other):
            one.send("POST", PLAYGROUND, {"content": "x"})
        assert seen == [f"Bearer {KEY}", "Bearer sk-other"]
        person.send("DELETE", f"{PLAYGROUND}provider/", status=204)
        person.send("POST", PLAYGROUND, {"content": "x"}, status=400)
        other.send("POST", PLAYGROUND, {"content": "x"})
    assert len(seen) == 3
    (mine,) = person.calls(1)
    assert mine["id"] not in [call["id"] for call in other.calls(2)]
