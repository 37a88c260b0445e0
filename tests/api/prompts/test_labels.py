"""Labels over HTTP: they move, and where they pointed is known for every instant."""

import pytest

from tests.api.prompts.conftest import Prompts

MINUTE = 60


async def moved_about(prompts: Prompts) -> str:
    """A prompt of three versions, whose label `production` is at 1 at 12:00, 2 at 12:01, 1 at
    12:02, nowhere at 12:03 and at 3 from 12:04."""
    prompt_id = str((await prompts.create("support", "one"))["id"])
    await prompts.add(prompt_id, "two")
    await prompts.add(prompt_id, "three")
    await prompts.move(prompt_id, "production", 1)
    for version in (2, 1):
        prompts.clock.advance(MINUTE)
        await prompts.move(prompt_id, "production", version)
    prompts.clock.advance(MINUTE)
    removed = await prompts.call("DELETE", f"{prompt_id}/labels/production/")
    assert (removed.status_code, removed.content) == (204, b"")
    prompts.clock.advance(MINUTE)
    await prompts.move(prompt_id, "production", 3)
    return prompt_id


UNTIL = [
    ("2025-01-15T11:59:59.999999Z", None),
    ("2025-01-15", None),
    ("2025-01-15T12:00:00Z", 1),
    ("2025-01-15T12:00:59.999999Z", 1),
    ("2025-01-15T12:01:00Z", 2),
    ("2025-01-15T13:01:30+01:00", 2),
    ("2025-01-15T12:02:00Z", 1),
    ("2025-01-15T12:03:00Z", None),
    ("2025-01-15T12:03:59Z", None),
    ("2025-01-15T12:04:00Z", 3),
    ("2026-01-01", 3),
    ("", 3),
]


async def test_a_label_is_set_and_moved(prompts: Prompts) -> None:
    prompt_id = (await prompts.create())["id"]
    await prompts.add(prompt_id)
    label = {"label": "production", "prompt_id": prompt_id}
    assert await prompts.move(prompt_id, "production", 1) == {
        **label,
        "version": 1,
        "created": True,
    }
    for version in (2, 2, 1):
        moved = await prompts.move(prompt_id, "production", version)
        assert moved == {**label, "version": version, "created": False}
    history = await prompts.ask(f"{prompt_id}/labels/production/history/")
    assert history["count"] == 3


async def test_where_a_label_points_is_told_with_who_moved_it(prompts: Prompts) -> None:
    prompt_id = await moved_about(prompts)
    assert await prompts.ask(f"{prompt_id}/labels/production/") == {
        "label": "production",
        "version": 3,
        "prompt_id": prompt_id,
        "moved_by": "user1@weir.test",
        "moved_at": "2025-01-15T12:04:00Z",
    }


async def test_where_a_label_pointed_at_any_instant(prompts: Prompts) -> None:
    prompt_id = await moved_about(prompts)
    for as_of, version in UNTIL:
        query = f"?as_of={as_of.replace('+', '%2B')}"
        answer = await prompts.call("GET", f"{prompt_id}/labels/production/{query}")
        fetched = await prompts.fetch("support", label="production", as_of=as_of)
        if version is None:
            assert (as_of, answer.status_code, fetched.status_code) == (as_of, 404, 404)
        else:
            assert (as_of, answer.json()["version"]) == (as_of, version)
            assert fetched.json()["version"] == version
            assert fetched.json()["labels"] == ["production"]


async def test_the_history_tells_every_move_the_latest_first(prompts: Prompts) -> None:
    prompt_id = await moved_about(prompts)
    path = f"{prompt_id}/labels/production/history/"
    history = await prompts.ask(path)
    assert [
        (row["from_version"], row["version"], row["moved_at"]) for row in history["results"]
    ] == [
        (None, 3, "2025-01-15T12:04:00Z"),
        (1, None, "2025-01-15T12:03:00Z"),
        (2, 1, "2025-01-15T12:02:00Z"),
        (1, 2, "2025-01-15T12:01:00Z"),
        (None, 1, "2025-01-15T12:00:00Z"),
    ]
    assert {row["moved_by"] for row in history["results"]} == {"user1@weir.test"}
    page = await prompts.ask(f"{path}?limit=2&offset=2")
    assert page["results"] == history["results"][2:4]
    assert (page["count"], page["next"] is None) == (5, False)


async def test_a_removed_label_keeps_its_history(prompts: Prompts) -> None:
    prompt_id = (await prompts.create())["id"]
    await prompts.move(prompt_id, "staging", 1)
    path = f"{prompt_id}/labels/staging/"
    assert (await prompts.call("DELETE", path)).status_code == 204
    assert (await prompts.call("DELETE", path)).status_code == 404
    assert (await prompts.call("GET", path)).status_code == 404
    assert (await prompts.ask(f"{path}history/"))["count"] == 2
    assert (await prompts.ask(f"{prompt_id}/"))["labels"] == []
    assert (await prompts.move(prompt_id, "staging", 1))["created"] is True


async def test_a_label_that_was_never_set_is_not_found(prompts: Prompts) -> None:
    prompt_id = (await prompts.create())["id"]
    for label in ("production", "a%20b", "%0A"):
        for path in (f"labels/{label}/", f"labels/{label}/history/"):
            assert (await prompts.call("GET", f"{prompt_id}/{path}")).status_code == 404


@pytest.mark.parametrize("label", [".x", "a b", "a%2Fb", "ä", "x" * 101, "x%0A"])
async def test_a_label_of_another_form_is_refused(prompts: Prompts, label: str) -> None:
    prompt_id = (await prompts.create())["id"]
    answer = await prompts.call("PUT", f"{prompt_id}/labels/{label}/", {"version": 1})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("label: ")


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"version": "1"}, 400), ({"version": 0}, 400), ({"version": 2}, 404)],
)
async def test_a_label_needs_a_version_that_is_there(
    prompts: Prompts, body: dict[str, object], status: int
) -> None:
    prompt_id = (await prompts.create())["id"]
    answer = await prompts.call("PUT", f"{prompt_id}/labels/production/", body)
    assert answer.status_code == status
    assert answer.json()["error"].startswith("version: ")


@pytest.mark.parametrize("as_of", ["yesterday", "2025-13-01", "12:00"])
async def test_an_instant_that_is_none_is_refused(prompts: Prompts, as_of: str) -> None:
    prompt_id = await moved_about(prompts)
    answer = await prompts.call("GET", f"{prompt_id}/labels/production/?as_of={as_of}")
    fetched = await prompts.fetch("support", label="production", as_of=as_of)
    for found in (answer, fetched):
        assert found.status_code == 400
        assert found.json()["error"].startswith("as_of: ")


async def test_the_same_key_tells_the_same_of_a_label(prompts: Prompts) -> None:
    prompt_id = (await prompts.create())["id"]
    headers = prompts.builder | {"Idempotency-Key": "k-1"}
    path = f"{prompt_id}/labels/production/"
    answers = [await prompts.call("PUT", path, {"version": 1}, headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].json()["created"] is True
