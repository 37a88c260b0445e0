"""Scores: created by people, reported by agents, listed and charted."""

from typing import Any

import pytest

from tests.api.harness import OTHER_TENANT
from tests.api.observability.world import World

SCORES = "/api/v1/evaluations/scores/"


async def create(world: World, **body: Any) -> Any:
    """A score that is accepted, as a person of the web UI creates it."""
    answer = await world.create_score(body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_score_is_created_by_its_author_and_listed_with_all_its_fields(
    world: World,
) -> None:
    run_id = await world.start("support-bot")
    created = await create(
        world,
        run_id=run_id,
        name="accuracy",
        data_type="numeric",
        value=0.95,
        comment="Very accurate response",
        metadata={"rubric": [1, None]},
    )
    assert created.pop("id").startswith("score_")
    assert created == {
        "name": "accuracy",
        "data_type": "numeric",
        "source": "manual",
        "numeric_value": 0.95,
        "string_value": None,
        "run_id": run_id,
        "llm_call_id": None,
        "created_at": "2025-01-15T12:00:00Z",
    }
    await world.fold()
    body = await world.read(SCORES)
    (listed,) = body.pop("results")
    assert listed.pop("author_user_id").startswith("usr_")
    assert listed.pop("id").startswith("score_")
    assert listed == {
        **created,
        "comment": "Very accurate response",
        "metadata": {"rubric": [1, None]},
        "evaluator_id": None,
        "evaluator_name": None,
        "run_agent_name": "support-bot",
        "llm_call_model": None,
    }
    assert body == {
        "count": 1,
        "next": None,
        "previous": None,
        "next_cursor": None,
        "aggregates": {
            "total_count": 1,
            "avg_numeric_value": 0.95,
            "score_names": ["accuracy"],
        },
    }


async def test_a_call_s_score_is_one_of_its_run(world: World) -> None:
    run_id, other = await world.start("support-bot"), await world.start("other")
    await world.calls(run_id, {"id": "c", "model": "claude"})
    await world.calls(other, {"id": "d"})
    await world.fold()
    first = await create(world, llm_call_id="c", name="tone", data_type="categorical", value="ok")
    assert (first["run_id"], first["llm_call_id"]) == (run_id, "c")
    await create(world, llm_call_id="c", run_id=run_id, name="tone", value=1)
    answer = await world.create_score(
        {"llm_call_id": "c", "run_id": other, "name": "tone", "value": 1}
    )
    assert answer.status_code == 404
    await world.fold()
    for query in ("llm_call_id=c", f"run_id={run_id}"):
        found = (await world.read(f"{SCORES}?{query}"))["results"]
        assert [row["llm_call_model"] for row in found] == ["claude", "claude"]
        assert [row["run_agent_name"] for row in found] == ["support-bot"] * 2
    assert (await world.read(f"{SCORES}?run_id={other}"))["count"] == 0


@pytest.mark.parametrize(
    ("data_type", "value", "numeric", "text"),
    [
        ("numeric", 3, 3.0, None),
        ("numeric", -1e30, -1e30, None),
        ("categorical", "positive", None, "positive"),
        ("categorical", "", None, ""),
        ("boolean", True, 1.0, "true"),
        ("boolean", False, 0.0, "false"),
    ],
)
async def test_the_data_type_says_what_the_value_is(
    world: World, data_type: str, value: Any, numeric: float | None, text: str | None
) -> None:
    run_id = await world.start()
    created = await create(world, run_id=run_id, name="n", data_type=data_type, value=value)
    assert (created["numeric_value"], created["string_value"]) == (numeric, text)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"run_id": None}, "run_id"),
    ({"run_id": 17}, "run_id"),
    ({"name": ""}, "name"),
    ({"name": None}, "name"),
    ({"data_type": "rank"}, "data_type"),
    ({"value": None}, "value"),
    ({"value": [1]}, "value"),
    ({"value": "0.5"}, "value"),
    ({"value": True}, "value"),
    ({"value": 1e31}, "value"),
    ({"data_type": "boolean", "value": 1}, "value"),
    ({"data_type": "boolean", "value": "true"}, "value"),
    ({"data_type": "categorical", "value": 1}, "value"),
    ({"data_type": "categorical", "value": True}, "value"),
    ({"metadata": [1]}, "metadata"),
    ({"comment": 7}, "comment"),
]


@pytest.mark.parametrize(("changes", "field"), REFUSED)
async def test_bad_input_is_refused_with_the_field_s_name(
    world: World, changes: dict[str, Any], field: str
) -> None:
    run_id = await world.start()
    answer = await world.create_score({"run_id": run_id, "name": "n", "value": 1, **changes})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(field)
    assert len(world.records) == 1


async def test_what_is_scored_has_to_be_the_tenant_s(world: World) -> None:
    run_id = await world.start()
    await world.calls(run_id, {"id": "c"})
    await world.fold()
    stranger = world.app.human(OTHER_TENANT)
    for scored in ({"run_id": run_id}, {"llm_call_id": "c"}):
        body = {"name": "n", "value": 1, **scored}
        assert (await world.create_score(body, stranger)).status_code == 404
    for scored in ({"run_id": "run_17"}, {"llm_call_id": "nothing"}):
        answer = await world.create_score({"name": "n", "value": 1, **scored})
        assert (answer.status_code, set(answer.json())) == (404, {"error"})
    assert len(world.records) == 2
    assert (await world.read(SCORES, stranger))["results"] == []


async def test_readers_read_and_builders_write(world: World) -> None:
    run_id = await world.start()
    body = {"run_id": run_id, "name": "n", "value": 1}
    viewer = world.app.key(roles=("viewer",))
    assert (await world.create_score(body, viewer)).status_code == 403
    assert (await world.ask(SCORES, viewer)).status_code == 200
    developer = world.app.key(roles=("developer",))
    assert (await world.create_score(body, developer)).status_code == 201
    await world.fold()
    (found,) = (await world.read(SCORES))["results"]
    assert (found["source"], found["author_user_id"]) == ("manual", None)


async def test_the_same_idempotency_key_creates_one_score(world: World) -> None:
    body = {"run_id": await world.start(), "name": "n", "value": 1}
    headers = {**world.human, "Idempotency-Key": "k"}
    first, second = [(await world.create_score(body, headers)).json() for _ in range(2)]
    assert first["id"] == second["id"]
    await world.fold()
    assert (await world.read(SCORES))["count"] == 1


async def some_scores(world: World) -> str:
    """By two agents' runs: accuracy 0.1, 0.2 and (no number), tone x2, ok twice; a minute apart."""
    run_id, other = await world.start("a"), await world.start("b")
    reports: list[tuple[str, list[dict[str, Any]]]] = [
        (run_id, [{"name": "accuracy", "numeric_value": 0.1}]),
        (run_id, [{"name": "accuracy", "numeric_value": 0.2}, {"name": "accuracy"}]),
        (other, [{"name": "tone", "data_type": "categorical", "string_value": "calm"}]),
        (other, [{"name": "tone", "data_type": "categorical", "string_value": "rude"}]),
        (run_id, [{"name": "tone", "data_type": "categorical", "string_value": "rude"}]),
        (run_id, [{"name": "ok", "data_type": "boolean", "numeric_value": 1.0}]),
        (other, [{"name": "ok", "data_type": "boolean", "string_value": "True"}]),
    ]
    for number, (run, items) in enumerate(reports):
        scores = [{"id": f"{number}{index}", **item} for index, item in enumerate(items)]
        await world.report(f"{run}/scores/", {"scores": scores})
        world.clock.advance(60)
    await create(world, run_id=run_id, name="manual", value=7)
    await world.fold()
    return run_id


async def test_scores_are_filtered_and_sorted(world: World) -> None:
    run_id = await some_scores(world)
    manual = (await world.read(f"{SCORES}?source=manual"))["results"][0]["id"]
    selections: list[tuple[str, list[str]]] = [
        ("source=sdk", ["60", "50", "40", "30", "20", "11", "10", "00"]),
        ("name=accuracy", ["11", "10", "00"]),
        ("data_type=boolean", ["60", "50"]),
        (f"run_id={run_id}&data_type=categorical", ["40"]),
        ("name=tone&sort=created_at", ["20", "30", "40"]),
        ("sort=numeric_value&data_type=numeric", ["00", "10", manual, "11"]),
        ("sort=-numeric_value&data_type=numeric", [manual, "10", "00", "11"]),
        ("sort=-source&limit=1", ["60"]),
        ("sort=source&limit=1", [manual]),
        ("sort=name&limit=2", ["11", "10"]),
        ("sort=-name&limit=2&offset=1", ["30", "20"]),
        ("source=evaluator", []),
        ("name=&source=&data_type=&run_id=&llm_call_id=&limit=1", [manual]),
    ]
    for query, ids in selections:
        found = (await world.read(f"{SCORES}?{query}"))["results"]
        assert (query, [row["id"] for row in found]) == (query, ids)
    body = await world.read(f"{SCORES}?data_type=numeric&limit=1")
    assert body["aggregates"] == {
        "total_count": 4,
        "avg_numeric_value": 2.43333333333333,
        "score_names": ["accuracy", "manual"],
    }
    empty = (await world.read(f"{SCORES}?name=tone"))["aggregates"]
    assert empty == {"total_count": 3, "avg_numeric_value": None, "score_names": ["tone"]}


async def test_bad_parameters_are_refused_with_their_name(world: World) -> None:
    for query in ("source=mine", "data_type=x", "sort=comment", "limit=0", "offset=1000001"):
        answer = await world.ask(f"{SCORES}?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(query.partition("=")[0])
    answer = await world.ask(f"{SCORES}analytics/?period=2w")
    assert answer.json()["error"].startswith("period")


async def test_analytics_tell_how_scores_are_distributed(world: World) -> None:
    run_id = await world.start("a")
    late = {"name": "accuracy", "numeric_value": -5.5}
    await world.report(f"{run_id}/scores/", {"scores": [late]})
    world.clock.advance(3 * 86_400)
    await some_scores(world)
    body = await world.read(f"{SCORES}analytics/")
    assert (body["period"], body["since"]) == ("7d", "2025-01-11T12:07:00Z")
    accuracy, manual, ok, tone = body["distributions"]
    assert accuracy == {
        "name": "accuracy",
        "data_type": "numeric",
        "total_count": 4,
        "avg": -1.73333333333333,
        "min": -5.5,
        "max": 0.2,
        "time_series": [
            {"date": "2025-01-15", "avg": -5.5, "count": 1},
            {"date": "2025-01-18", "avg": 0.15, "count": 2},
        ],
    }
    assert (manual["name"], manual["avg"]) == ("manual", 7)
    assert ok == {
        "name": "ok",
        "data_type": "boolean",
        "total_count": 2,
        "value_counts": [{"value": "true", "count": 2}],
    }
    assert tone == {
        "name": "tone",
        "data_type": "categorical",
        "total_count": 3,
        "value_counts": [{"value": "rude", "count": 2}, {"value": "calm", "count": 1}],
    }
    (of_b,) = (await world.read(f"{SCORES}analytics/?name=tone&agent=b"))["distributions"]
    assert of_b["total_count"] == 2
    (day,) = (await world.read(f"{SCORES}analytics/?name=accuracy&period=1d"))["distributions"]
    assert (day["total_count"], day["min"]) == (3, 0.1)
    stranger = world.app.human(OTHER_TENANT)
    assert (await world.read(f"{SCORES}analytics/", stranger))["distributions"] == []


async def test_a_name_of_numbers_without_one_has_no_mean(world: World) -> None:
    run_id = await world.start()
    await world.report(f"{run_id}/scores/", {"scores": [{"name": "n"}]})
    await world.fold()
    (found,) = (await world.read(f"{SCORES}analytics/"))["distributions"]
    assert (found["avg"], found["min"], found["max"]) == (None, None, None)
    assert found["time_series"] == []
