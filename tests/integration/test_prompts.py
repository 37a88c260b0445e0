"""Prompts on real Kafka, Postgres and ClickHouse: the SQL says what the tests in memory say, races
have one winner, and the read models are the fold of the log."""

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx

from api.__main__ import services_on
from api.app import build_app
from api.prompts.bodies import CONFIG_BYTES_MAX, CONTENT_BYTES_MAX, METADATA_BYTES_MAX
from api.provision import Installation, provision_tenant
from api.services import Services
from commands.prompts.content import hash_of
from infra.config import Settings
from infra.ids import new_id
from projections.prompts import VIEWS
from projections.runner import fold, reduce_all
from projections.statements import Delete
from schemas.envelope import from_headers
from tests.api.prompts.client import CHAT, PromptsClient
from tests.commands.prompts.test_content import AWKWARD
from tests.integration.served import Served, headers_of
from tests.loops import loops, read_topic


class RealPrompts(PromptsClient):
    """The client over real servers, for a tenant of its own."""

    def __init__(
        self,
        services: Services,
        client: httpx.AsyncClient,
        tenant: str,
        builder: dict[str, str],
        key: dict[str, str],
    ) -> None:
        super().__init__(client, builder, key)
        self.services, self.tenant = services, tenant


@contextlib.asynccontextmanager
async def real_prompts(settings: Settings) -> AsyncIterator[RealPrompts]:
    """The API and a decider role in this process, with a tenant and its admin."""
    settings = dataclasses.replace(settings, secret_key=os.urandom(32), rate_limit_per_minute=0)
    async with loops(settings), services_on(settings, asyncio.Event()) as services:
        installation = Installation(settings, services.bus, services.reads, services.signer)
        found = await provision_tenant(
            installation, name="Acme", email=f"{new_id('root')}@acme.example"
        )
        transport = httpx.ASGITransport(app=build_app(services), client=("192.0.2.1", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://weir.test") as client:
            yield RealPrompts(
                services,
                client,
                found.tenant_id,
                {"Authorization": f"Bearer {found.admin_token}"},
                {"X-Wax-Key": found.api_key},
            )


async def test_of_those_who_take_a_name_at_once_one_wins(settings: Settings) -> None:
    async with real_prompts(settings) as it:
        body = {"name": "support", "content": "Hello"}
        answers = await asyncio.gather(*(it.call("POST", "", body) for _ in range(12)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11
        others = [await it.create(f"other-{number}") for number in range(4)]
        renamed = await asyncio.gather(
            *(it.call("PUT", f"{made['id']}/", {"name": "wanted"}) for made in others)
        )
        assert sorted(answer.status_code for answer in renamed) == [200] + [409] * 3
        assert (await it.ask("?search=wanted"))["count"] == 1
        # Freed and taken in one breath: whoever comes second finds it free.
        (owner,) = (await it.ask("?search=wanted"))["results"]
        assert (await it.call("DELETE", f"{owner['id']}/")).status_code == 204
        assert (await it.create("wanted"))["id"] != owner["id"]


async def test_versions_made_at_once_have_no_gap(settings: Settings) -> None:
    async with real_prompts(settings) as it:
        made = await it.create("support")
        added = await asyncio.gather(*(it.add(made["id"], f"v{number}") for number in range(20)))
        assert sorted(version["version"] for version in added) == list(range(2, 22))
        found = await it.ask(f"{made['id']}/versions/?limit=100")
        assert [row["version"] for row in found["results"]] == list(range(21, 0, -1))
        hashes = {row["version"]: row["content_hash"] for row in found["results"]}
        assert {row["version"]: row["content_hash"] for row in added}.items() <= hashes.items()


async def test_contents_survive_the_log_and_the_database_to_the_letter(settings: Settings) -> None:
    async with real_prompts(settings) as it:
        made = await it.create("awkward", metadata={"x": [1.0, 1e2, 10**30]})
        contents = [*AWKWARD, "🙂" * ((CONTENT_BYTES_MAX - 2) // 4)]
        for content in contents:
            await it.add(made["id"], content, config={"temperature": 1.0})
        for number, content in enumerate(contents, 2):
            version = await it.ask(f"{made['id']}/versions/{number}/")
            assert repr(version["content"]) == repr(content)
            assert version["content_hash"] == hash_of(content)
            fetched = await it.fetched("awkward", version=number)
            assert repr(fetched["content"]) == repr(content)
            assert repr(fetched["config"]) == "{'temperature': 1.0}"
        assert repr((await it.ask(f"{made['id']}/"))["metadata"]["x"]) == repr([1.0, 1e2, 10**30])


async def test_all_that_is_allowed_at_most_fits_the_log(settings: Settings) -> None:
    async with real_prompts(settings) as it:
        made = await it.create(
            "🙂" * 200,
            "🙂" * ((CONTENT_BYTES_MAX - 2) // 4),
            description="🙂" * 10_000,
            tags=["🙂" * 100] * 50,
            config={"x": "x" * (CONFIG_BYTES_MAX - 8)},
            metadata={"x": "x" * (METADATA_BYTES_MAX - 8)},
            commit_message="🙂" * 2_000,
        )
        found = await it.ask(f"{made['id']}/")
        assert found == made
        content = "x" * (CONTENT_BYTES_MAX - 2)
        config = {"y": "y" * (CONFIG_BYTES_MAX - 8)}
        added = await it.add(made["id"], content, config=config, commit_message="🙂" * 2_000)
        assert added["version"] == 2


async def test_which_version_was_live_when(settings: Settings) -> None:
    async with real_prompts(settings) as it:
        made = await it.create("support", CHAT, prompt_type="chat")
        await it.add(made["id"], "two")
        path = f"{made['id']}/labels/production/"
        at = {}
        for version in (1, 2, 1):
            await it.move(made["id"], "production", version)
            standing = await it.ask(path)
            at[standing["moved_at"]] = version
        await it.move(made["id"], "Staging", 1)
        await it.move(made["id"], "alpha", 1)
        assert len(at) == 3
        for moved_at, version in at.items():
            for label in ("production", None):
                found = await it.fetched("support", label=label or "", as_of=moved_at)
                assert found["version"] == (version if label else 2)
                assert found["labels"] == (["production"] if found["version"] == version else [])
            assert (await it.ask(f"{path}?as_of={moved_at}"))["version"] == version
        before = await it.fetch("support", label="production", as_of="2001-01-01")
        assert before.status_code == 404
        assert (await it.fetch("support", as_of="2001-01-01")).status_code == 404
        # Sorted as code sorts, whatever the database's collation.
        assert (await it.fetched("support", label="alpha"))["labels"] == [
            "Staging",
            "alpha",
            "production",
        ]
        assert (await it.ask(""))["results"][0]["labels"] == ["Staging", "alpha", "production"]
        assert (await it.call("DELETE", path)).status_code == 204
        assert (await it.fetch("support", label="production")).status_code == 404
        history = (await it.ask(f"{path}history/?limit=3"))["results"]
        assert [(row["from_version"], row["version"]) for row in history] == [
            (1, None),
            (2, 1),
            (1, 2),
        ]
        person = await it.client.get("/api/v1/auth/me", headers=it.builder)
        assert {row["moved_by"] for row in history} == {person.json()["email"]}


async def test_lists_are_searched_by_text_and_tags(settings: Settings) -> None:
    async with real_prompts(settings) as it:
        await it.create("a_one", tags=["x", "y"], description="For Ünits")
        await it.create("b%two", tags=["x"])
        for query, names in (
            ("", ["b%two", "a_one"]),
            ("search=%25", ["b%two"]),
            ("search=_", ["a_one"]),
            ("search=üNITS", ["a_one"]),
            ("tag=x&tag=y", ["a_one"]),
            ("tag=x&limit=1&offset=1", ["a_one"]),
        ):
            found = await it.ask(f"?{query}")
            assert (query, [row["name"] for row in found["results"]]) == (query, names)


async def test_the_read_models_are_the_fold_of_the_log(settings: Settings) -> None:
    async with real_prompts(settings) as it:
        kept, gone = await it.create("kept", CHAT), await it.create("gone")
        for made in (kept, gone):
            await it.add(made["id"], {"x": 1.0})
            await it.move(made["id"], "production", 2)
            await it.move(made["id"], "staging", 1)
            await it.call("DELETE", f"{made['id']}/labels/staging/")
            await it.call("PUT", f"{made['id']}/", {"tags": ["a"], "name": f"{made['name']}!"})
        await it.call("DELETE", f"{gone['id']}/")
        for key in ("sk-one", "sk-two"):
            provider = {"base_url": "https://llm.example/v1", "api_key": key}
            set_ = await it.call("PUT", "playground/provider/", provider)
            assert set_.status_code == 200, set_.text
        log = await read_topic(it.services.settings, "events", it.tenant)
        events = [
            (from_headers([(k, v.encode()) for k, v in headers.items()]), event)
            for headers, event in log
        ]
        for view in VIEWS:
            (batch,) = fold(view, [made for _, made in reduce_all([view], events)])
            left = {key for key, made in batch.items() if not isinstance(made, Delete)}
            rows = await it.services.reads.all(
                f"SELECT * FROM {view.table} WHERE tenant = %s", it.tenant
            )
            assert {tuple(row[name] for name in view.key) for row in rows} == left
            assert left
            assert gone["id"] not in json.dumps(rows)


def test_usage_is_joined_to_versions_over_http(served: Served) -> None:
    kinds = headers_of(served.made)
    key, person = kinds["api_key"], kinds["user"]
    with httpx.Client(base_url=served.url, timeout=60) as client:

        def post(path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
            answer = client.post(path, json=body, headers=headers)
            assert answer.status_code < 300, answer.text
            return answer

        body = {"name": "metered", "content": CHAT, "prompt_type": "chat"}
        prompt_id = post("/api/v1/prompts/", body, person).json()["id"]
        fetched = client.get("/api/v1/observe/prompts/metered/", headers=key).json()
        run = post("/api/v1/observe/runs/start/", {"agent_name": "a"}, key).json()["run_id"]
        made = {
            "model": "m",
            "tokens_in": 3,
            "tokens_out": 4,
            "cost": 0.1,
            "prompt_hash": fetched["content_hash"],
        }
        calls = {"calls": [made, {**made, "cost": 0.2}, {**made, "prompt_hash": ""}]}
        recorded = post(f"/api/v1/observe/runs/{run}/llm-calls/", calls, key)
        position = recorded.headers["x-log-position"]
        metrics = client.get(
            f"/api/v1/prompts/{prompt_id}/metrics/?min_position={position}", headers=person
        )
        usage = {"call_count": 2, "total_tokens": 14, "total_cost": 0.3}
        assert metrics.json() == {
            "prompt_id": prompt_id,
            "prompt_name": "metered",
            "totals": usage,
            "versions": [{"version": 1, "content_hash": hash_of(CHAT), **usage}],
        }
