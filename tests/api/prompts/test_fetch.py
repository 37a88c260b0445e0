"""What an agent's code fetches: by version, by label, the latest, and as of an instant."""

from typing import Any
from urllib.parse import quote

import pytest

from commands.prompts.content import hash_of
from tests.api.harness import OTHER_TENANT
from tests.api.prompts.client import CHAT
from tests.api.prompts.conftest import Prompts


@pytest.fixture
async def labelled(prompts: Prompts) -> Prompts:
    """`support` with versions 1, 2, 3 a minute apart; `production` at 2, `old` at 1."""
    made = await prompts.create("support", "one", prompt_type="chat")
    for content in (CHAT, "three"):
        prompts.clock.advance(60)
        await prompts.add(made["id"], content, config={"model": "gpt-4o", "temperature": 0.7})
    await prompts.move(made["id"], "production", 2)
    await prompts.move(made["id"], "old", 1)
    return prompts


async def test_a_version_is_fetched_with_all_that_code_needs(labelled: Prompts) -> None:
    assert await labelled.fetched("support", label="production") == {
        "name": "support",
        "version": 2,
        "prompt_type": "chat",
        "content": CHAT,
        "config": {"model": "gpt-4o", "temperature": 0.7},
        "labels": ["production"],
        "content_hash": hash_of(CHAT),
    }


@pytest.mark.parametrize(
    ("query", "version"),
    [
        ({}, 3),
        ({"label": ""}, 3),
        ({"label": "production"}, 2),
        ({"version": 1}, 1),
        ({"version": 3, "label": "production"}, 3),
        ({"version": 1, "label": "nowhere"}, 1),
        ({"as_of": "2025-01-15T12:01:30Z"}, 2),
        ({"as_of": "2025-01-15T12:00:00Z"}, 1),
        ({"version": 3, "as_of": "2025-01-15T12:00:00Z"}, 3),
    ],
)
async def test_which_version_is_fetched(
    labelled: Prompts, query: dict[str, Any], version: int
) -> None:
    assert (await labelled.fetched("support", **query))["version"] == version


async def test_labels_are_those_of_the_instant(labelled: Prompts) -> None:
    assert (await labelled.fetched("support", version=1))["labels"] == ["old"]
    before = await labelled.fetched("support", as_of="2025-01-15T12:00:30Z")
    assert (before["version"], before["labels"]) == (1, [])


@pytest.mark.parametrize(
    ("name", "query", "error"),
    [
        ("nobody", {}, "There is no such prompt"),
        ("nobody", {"label": "production"}, "There is no such prompt"),
        ("Support", {}, "There is no such prompt"),
        ("support", {"version": 4}, "The prompt has no such version"),
        ("support", {"version": 4, "label": "production"}, "The prompt has no such version"),
        ("support", {"label": "staging"}, "The prompt has no such label"),
        ("support", {"as_of": "2025-01-15T11:00:00Z"}, "The prompt had no version then"),
    ],
)
async def test_what_is_not_there_is_not_found(
    labelled: Prompts, name: str, query: dict[str, Any], error: str
) -> None:
    answer = await labelled.fetch(name, **query)
    assert (answer.status_code, answer.json()) == (404, {"error": error})


@pytest.mark.parametrize("query", [{"version": "x"}, {"version": 0}, {"version": 2**40}])
async def test_a_version_that_is_no_number_is_refused(
    labelled: Prompts, query: dict[str, Any]
) -> None:
    answer = await labelled.fetch("support", **query)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("version: ")


@pytest.mark.parametrize("name", ["a/b", "Grüße 支付", "50%", "?x=1", "a.b-c_d", "metrics"])
async def test_a_name_of_any_text_is_found(prompts: Prompts, name: str) -> None:
    await prompts.create(name)
    assert (await prompts.fetched(quote(name, safe="")))["name"] == name


async def test_both_slashes_and_both_headers_are_served(labelled: Prompts) -> None:
    bearer = {"Authorization": f"Bearer {labelled.key['X-Wax-Key']}"}
    for path in ("/api/v1/observe/prompts/support/", "/api/v1/observe/prompts/support"):
        for headers in (labelled.key, bearer):
            answer = await labelled.client.get(path, headers=headers)
            assert (answer.status_code, answer.json()["version"]) == (200, 3)


async def test_it_is_for_keys_and_each_tenant_has_its_own(labelled: Prompts) -> None:
    path = "/api/v1/observe/prompts/support/"
    person = labelled.harness.human()
    assert (await labelled.client.get(path, headers=person)).status_code == 403
    other = labelled.harness.key(OTHER_TENANT)
    assert (await labelled.client.get(path, headers=other)).status_code == 404
