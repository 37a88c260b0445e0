"""Versions over HTTP: numbered, immutable, hashed as a client would hash them."""

import json
from typing import Any

import pytest

from api.prompts.bodies import CONTENT_BYTES_MAX
from commands.prompts.content import hash_of
from tests.api.prompts.client import CHAT, PROMPTS
from tests.api.prompts.conftest import Prompts
from tests.commands.prompts.test_content import AWKWARD


async def test_a_version_gets_the_next_number(prompts: Prompts) -> None:
    made = await prompts.create("support", "Hello", config={"model": "m", "temperature": 1})
    prompts.clock.advance(60)
    added = await prompts.add(
        made["id"], CHAT, config={"temperature": 0.5}, commit_message="Improved tone"
    )
    assert added == {
        "version": 2,
        "content_hash": hash_of(CHAT),
        "commit_message": "Improved tone",
        "created_by": "user1@weir.test",
        "created_at": "2025-01-15T12:01:00Z",
    }
    assert await prompts.ask(f"{made['id']}/versions/2/") == {
        "prompt_id": made["id"],
        "prompt_name": "support",
        "prompt_type": "text",
        "content": CHAT,
        "config": {"model": "m", "temperature": 0.5},
        "labels": [],
        **added,
    }
    assert (await prompts.add(made["id"], "Hello"))["version"] == 3


async def test_versions_are_listed_newest_first_with_previews_and_labels(prompts: Prompts) -> None:
    made = await prompts.create("support", CHAT)
    await prompts.add(made["id"], "x" * 300, config={"model": "m"})
    await prompts.move(made["id"], "staging", 1)
    await prompts.move(made["id"], "production", 1)
    listed = await prompts.ask(f"{made['id']}/versions/")
    assert listed["count"] == 2
    assert [item["version"] for item in listed["results"]] == [2, 1]
    assert listed["results"][0]["content_preview"] == "x" * 200
    assert listed["results"][1] == {
        "version": 1,
        "content_preview": json.dumps(CHAT)[:200],
        "config": {},
        "content_hash": hash_of(CHAT),
        "commit_message": "Initial version",
        "created_by": "user1@weir.test",
        "labels": ["production", "staging"],
        "created_at": "2025-01-15T12:00:00Z",
    }
    assert (await prompts.ask(f"{made['id']}/"))["versions"] == listed["results"]


async def test_a_prompt_shows_its_newest_versions(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await prompts.create()
    for number in range(3):
        await prompts.add(made["id"], str(number))
    monkeypatch.setattr("api.prompts.prompts.VERSIONS_SHOWN", 2)
    shown = await prompts.ask(f"{made['id']}/")
    assert (shown["version_count"], [row["version"] for row in shown["versions"]]) == (4, [4, 3])


async def test_versions_are_paged(prompts: Prompts) -> None:
    made = await prompts.create()
    for number in range(4):
        await prompts.add(made["id"], str(number))
    path = f"{made['id']}/versions/?limit=2"
    first = await prompts.ask(path)
    assert ([item["version"] for item in first["results"]], first["count"]) == ([5, 4], 5)
    last = await prompts.ask(f"{path}&offset=4")
    assert [item["version"] for item in last["results"]] == [1]
    assert (last["next"], last["previous"].endswith("limit=2&offset=2")) == (None, True)


async def test_awkward_contents_come_back_as_they_were_with_the_clients_hash(
    prompts: Prompts,
) -> None:
    made = await prompts.create("awkward")
    headers = prompts.builder | {"Content-Type": "application/json"}
    path = f"{PROMPTS}{made['id']}/versions/"
    for content in AWKWARD:
        for ascii_only in (True, False):
            body = json.dumps({"content": content}, ensure_ascii=ascii_only)
            answer = await prompts.client.post(path, content=body, headers=headers)
            assert answer.status_code == 201, answer.text
            assert answer.json()["content_hash"] == hash_of(content)
            fetched = await prompts.fetched("awkward")
            assert repr(fetched["content"]) == repr(content)
            assert fetched["content_hash"] == hash_of(fetched["content"])


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{}", 400, "content: Field required"),
        (b'{"content": null}', 400, "content: Field required"),
        (b'{"content": 1e400}', 400, "content: A number in it is too large"),
        (b'{"content": [' + b"1" * 5000 + b"]}", 400, "content: A number in it is too large"),
        (b'{"content": NaN}', 400, "The body is not JSON"),
        (b'{"content": "\\u0000"}', 400, "content: "),
        (b'{"content": ["\\ud800"]}', 400, "content[0]: "),
        (b'{"content": ' + b"[" * 70 + b"]" * 70 + b"}", 400, "The body is nested"),
        (b'{"content": 1, "config": []}', 400, "config: "),
        (b'{"content": 1, "commit_message": 1}', 400, "commit_message: "),
        (b'{"content": "' + b"x" * CONTENT_BYTES_MAX + b'"}', 413, "content: At most"),
        (b"{", 400, "The body is not JSON"),
    ],
)
async def test_what_cannot_be_kept_is_refused(
    prompts: Prompts, body: bytes, status: int, error: str
) -> None:
    made = await prompts.create()
    headers = prompts.builder | {"Content-Type": "application/json"}
    path = f"{PROMPTS}{made['id']}/versions/"
    answer = await prompts.client.post(path, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(error)
    assert (await prompts.ask(f"{made['id']}/versions/"))["count"] == 1


@pytest.mark.parametrize("number", ["0", "2", "-1", "x", "1.0", "9" * 30, "%31%0A"])
async def test_a_version_that_is_not_there_is_not_found(prompts: Prompts, number: str) -> None:
    made = await prompts.create()
    answer = await prompts.call("GET", f"{made['id']}/versions/{number}/")
    assert answer.status_code == 404


async def test_the_same_idempotency_key_adds_one_version(prompts: Prompts) -> None:
    made = await prompts.create()
    headers = prompts.builder | {"Idempotency-Key": "k-1"}
    answers: list[Any] = []
    for _ in range(2):
        answer = await prompts.call(
            "POST", f"{made['id']}/versions/", {"content": "again"}, headers
        )
        answers.append((answer.status_code, answer.json()))
        await prompts.add(made["id"], "between")
    assert answers[0] == answers[1]
    assert answers[0][1]["version"] == 2
