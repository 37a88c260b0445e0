"""Prompts over HTTP: made, listed, described, renamed, deleted."""

import hashlib
import json
from typing import Any

import pytest

from api.prompts.bodies import CONFIG_BYTES_MAX, CONTENT_BYTES_MAX, METADATA_BYTES_MAX
from tests.api.harness import OTHER_TENANT
from tests.api.prompts.client import CHAT
from tests.api.prompts.conftest import Prompts

NOON = "2025-01-15T12:00:00Z"


def dumped_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


async def test_a_prompt_is_made_with_all_that_was_said(prompts: Prompts) -> None:
    made = await prompts.create(
        "support-prompt",
        CHAT,
        description="Main support agent prompt",
        prompt_type="chat",
        config={"model": "gpt-4o", "temperature": 0.7},
        tags=["support"],
        metadata={"team": {"id": 1}},
        commit_message="First",
    )
    prompt_id = made.pop("id")
    assert prompt_id.startswith("prm_")
    assert made == {
        "name": "support-prompt",
        "description": "Main support agent prompt",
        "prompt_type": "chat",
        "tags": ["support"],
        "metadata": {"team": {"id": 1}},
        "config": {"model": "gpt-4o", "temperature": 0.7},
        "latest_version": 1,
        "version_count": 1,
        "labels": [],
        "created_by": "user1@weir.test",
        "created_at": NOON,
        "updated_at": NOON,
        "versions": [
            {
                "version": 1,
                "content_preview": json.dumps(CHAT)[:200],
                "config": {"model": "gpt-4o", "temperature": 0.7},
                "content_hash": dumped_hash(CHAT),
                "commit_message": "First",
                "created_by": "user1@weir.test",
                "labels": [],
                "created_at": NOON,
            }
        ],
    }
    assert await prompts.ask(f"{prompt_id}/") == {"id": prompt_id, **made}


async def test_what_is_not_said_has_the_documents_defaults(prompts: Prompts) -> None:
    nothing: dict[str, Any] = {
        "description": None,
        "prompt_type": None,
        "config": None,
        "tags": None,
        "metadata": None,
        "commit_message": None,
    }
    for name, fields in (("left-out", {}), ("null", nothing)):
        made = await prompts.create(name, "Hello", **fields)
        assert (made["description"], made["prompt_type"], made["tags"]) == ("", "text", [])
        assert made["metadata"] == made["config"] == {}
        assert made["versions"][0]["commit_message"] == "Initial version"
        assert made["versions"][0]["content_preview"] == "Hello"


async def test_prompts_are_listed_newest_first(prompts: Prompts) -> None:
    first = await prompts.create("first", tags=["a", "b"], description="Of Orders")
    prompts.clock.advance(60)
    await prompts.create("second", tags=["b"])
    await prompts.add(first["id"])
    await prompts.move(first["id"], "staging", 1)
    await prompts.move(first["id"], "production", 2)
    listed = await prompts.ask("")
    assert listed["count"] == 2
    assert [item["name"] for item in listed["results"]] == ["second", "first"]
    assert listed["results"][1] == {
        "id": first["id"],
        "name": "first",
        "description": "Of Orders",
        "prompt_type": "text",
        "tags": ["a", "b"],
        "latest_version": 2,
        "version_count": 2,
        "labels": ["production", "staging"],
        "created_at": NOON,
        "updated_at": "2025-01-15T12:01:00Z",
    }


SELECTIONS = [
    ("", ["b-two", "a-one"]),
    ("search=ONE", ["a-one"]),
    ("search=refund", ["b-two"]),
    ("search=%25", []),
    ("tag=x", ["b-two", "a-one"]),
    ("tag=x&tag=y", ["a-one"]),
    ("tag=X", []),
    ("tag=y&search=two", []),
    ("limit=1", ["b-two"]),
    ("limit=1&offset=1", ["a-one"]),
    ("offset=2", []),
]


async def test_prompts_are_searched_and_paged(prompts: Prompts) -> None:
    await prompts.create("a-one", tags=["x", "y"])
    prompts.clock.advance(1)
    await prompts.create("b-two", tags=["x"], description="Refunds")
    for query, names in SELECTIONS:
        listed = await prompts.ask(f"?{query}")
        assert (query, [item["name"] for item in listed["results"]]) == (query, names)
    page = await prompts.ask("?limit=1")
    assert (page["count"], page["previous"]) == (2, None)
    assert page["next"].endswith("/api/v1/prompts/?limit=1&offset=1")


async def test_a_taken_name_is_a_conflict(prompts: Prompts) -> None:
    await prompts.create("support")
    answer = await prompts.call("POST", "", {"name": "support", "content": "x"})
    assert answer.status_code == 409
    assert answer.json() == {"error": "name: a prompt is called 'support' already"}


async def test_put_changes_what_it_names_and_nothing_else(prompts: Prompts) -> None:
    made = await prompts.create("support", tags=["a"], metadata={"x": 1.0}, description="d")
    path = f"{made['id']}/"
    prompts.clock.advance(60)
    answer = await prompts.call("PUT", path, {"description": "New", "tags": ["support", "v2"]})
    assert answer.status_code == 200
    changed = answer.json()
    assert (changed["description"], changed["tags"]) == ("New", ["support", "v2"])
    assert (changed["name"], changed["metadata"]) == ("support", {"x": 1.0})
    assert (changed["created_at"], changed["updated_at"]) == (NOON, "2025-01-15T12:01:00Z")
    found = await prompts.ask(path)
    assert {name: found[name] for name in changed} == changed
    same = await prompts.call("PUT", path, {"content": "no", "prompt_type": "chat"})
    assert same.json() == changed
    assert (await prompts.ask(path))["versions"] == made["versions"]


async def test_a_renamed_prompt_frees_its_name(prompts: Prompts) -> None:
    one, other = await prompts.create("one"), await prompts.create("other")
    taken = await prompts.call("PUT", f"{one['id']}/", {"name": "other", "tags": ["x"]})
    assert taken.status_code == 409
    assert (await prompts.ask(f"{one['id']}/"))["tags"] == []
    renamed = await prompts.call("PUT", f"{one['id']}/", {"name": "two"})
    assert renamed.json()["name"] == "two"
    assert (await prompts.fetch("one")).status_code == 404
    assert (await prompts.fetched("two"))["version"] == 1
    moved = await prompts.call("PUT", f"{other['id']}/", {"name": "one"})
    assert moved.status_code == 200


async def test_a_deleted_prompt_is_gone_and_its_name_is_free(prompts: Prompts) -> None:
    made = await prompts.create("support")
    await prompts.add(made["id"])
    await prompts.move(made["id"], "production", 2)
    answer = await prompts.call("DELETE", f"{made['id']}/")
    assert (answer.status_code, answer.content) == (204, b"")
    for path in (
        "",
        "versions/",
        "versions/1/",
        "labels/production/",
        "labels/production/history/",
        "metrics/",
    ):
        found = await prompts.call("GET", f"{made['id']}/{path}")
        assert found.status_code == 404, path
    assert (await prompts.fetch("support")).status_code == 404
    assert (await prompts.call("DELETE", f"{made['id']}/")).status_code == 404
    assert (await prompts.ask(""))["count"] == 0
    again = await prompts.create("support")
    assert again["id"] != made["id"]
    assert (await prompts.fetched("support"))["labels"] == []


BAD_FIELDS = [
    ("name", ""),
    ("name", " x"),
    ("name", "x "),
    ("name", "x\n"),
    ("name", "a\tb"),
    ("name", "x" * 201),
    ("name", 7),
    ("description", "x" * 10_001),
    ("tags", ["x"] * 51),
    ("tags", "support"),
    ("tags[1]", ["x", ""]),
    ("tags[0]", ["x" * 101]),
    ("metadata", [1]),
]
BAD_CREATIONS = [
    ("prompt_type", "image"),
    ("config", "gpt-4o"),
    ("commit_message", "x" * 2_001),
    ("content", None),
]


@pytest.mark.parametrize(("field", "value"), [*BAD_FIELDS, *BAD_CREATIONS])
async def test_a_bad_field_is_named(prompts: Prompts, field: str, value: Any) -> None:
    body = {"name": "support", "content": "Hello", field.partition("[")[0]: value}
    answer = await prompts.call("POST", "", body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{field}: ")
    assert prompts.harness.bus.requests == []


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
async def test_a_bad_field_of_a_revision_is_named(prompts: Prompts, field: str, value: Any) -> None:
    made = await prompts.create()
    answer = await prompts.call("PUT", f"{made['id']}/", {field.partition("[")[0]: value})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{field}: ")


@pytest.mark.parametrize("missing", ["name", "content"])
async def test_what_is_required_is_missed(prompts: Prompts, missing: str) -> None:
    body = {"name": "support", "content": "Hello"}
    del body[missing]
    answer = await prompts.call("POST", "", body)
    assert (answer.status_code, answer.json()) == (400, {"error": f"{missing}: Field required"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", "x" * (CONTENT_BYTES_MAX - 1)),
        ("content", "ä" * (CONTENT_BYTES_MAX // 2)),
        ("config", {"x": "x" * CONFIG_BYTES_MAX}),
        ("metadata", {"x": "x" * METADATA_BYTES_MAX}),
    ],
)
async def test_what_fits_no_record_is_too_large(prompts: Prompts, field: str, value: Any) -> None:
    answer = await prompts.call("POST", "", {"name": "big", "content": "Hello", field: value})
    assert answer.status_code == 413
    assert answer.json()["error"].startswith(f"{field}: At most ")


async def test_the_limits_themselves_fit(prompts: Prompts) -> None:
    made = await prompts.create(
        "x" * 200,
        "🙂" * ((CONTENT_BYTES_MAX - 2) // 4),
        description="x" * 10_000,
        tags=["ä" * 100] * 50,
        commit_message="x" * 2_000,
    )
    assert made["versions"][0]["content_preview"] == "🙂" * 200


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "offset=-1", "tag=", "search=%FF"])
async def test_a_query_out_of_bounds_is_refused(prompts: Prompts, query: str) -> None:
    answer = await prompts.call("GET", f"?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(query.partition("=")[0])


async def test_the_same_idempotency_key_makes_one_prompt(prompts: Prompts) -> None:
    headers = prompts.builder | {"Idempotency-Key": "k-1"}
    body = {"name": "support", "content": "Hello", "commit_message": ""}
    first = await prompts.call("POST", "", body, headers)
    await prompts.call("PUT", f"{first.json()['id']}/", {"description": "changed meanwhile"})
    again = await prompts.call("POST", "", body, headers)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert (await prompts.ask(""))["count"] == 1
    other = await prompts.call("POST", "", {**body, "name": "other"}, headers)
    assert other.status_code == 409


async def test_another_tenants_prompt_is_not_there(prompts: Prompts) -> None:
    made = await prompts.create("support")
    stranger = prompts.harness.human(OTHER_TENANT)
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "", {"name": "mine"}),
        ("DELETE", "", None),
        ("POST", "versions/", {"content": "x"}),
        ("PUT", "labels/production/", {"version": 1}),
        ("GET", "versions/1/", None),
    ):
        answer = await prompts.call(method, f"{made['id']}/{path}", body, stranger)
        assert answer.status_code == 404, (method, path)
    assert (await prompts.call("GET", "", None, stranger)).json()["count"] == 0
    own = await prompts.call("POST", "", {"name": "support", "content": "x"}, stranger)
    assert own.status_code == 201
    assert (await prompts.ask(f"{made['id']}/"))["name"] == "support"


@pytest.mark.parametrize("role", ["viewer", "billing", "compute"])
async def test_readers_do_not_write(prompts: Prompts, role: str) -> None:
    made = await prompts.create()
    for headers in (prompts.harness.human(roles=[role]), prompts.harness.key(roles=[role])):
        for method, path in (("POST", ""), ("PUT", f"{made['id']}/"), ("DELETE", f"{made['id']}/")):
            answer = await prompts.call(method, path, {"name": "x", "content": "x"}, headers)
            assert answer.status_code == 403
        read = await prompts.call("GET", f"{made['id']}/", None, headers)
        assert read.status_code == (200 if role == "viewer" else 403)


async def test_a_key_with_the_role_writes_too(prompts: Prompts) -> None:
    key = prompts.harness.key(roles=("developer",))
    answer = await prompts.call("POST", "", {"name": "by-key", "content": "x"}, key)
    assert answer.status_code == 201
    (actor,) = {item.envelope.actor.id for item in prompts.harness.bus.events}
    assert answer.json()["created_by"] == actor
