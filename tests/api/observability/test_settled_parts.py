"""Rows are read as they lie where that is exact, and the sums that ClickHouse keeps are those of
the rows: with repeats, before and after they are merged away, and after an erasure."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from operator import methodcaller
from typing import Any

import pytest

from api.observability.exactly import Ask, exactly
from api.observability.settled_parts import SettledParts, settled_parts
from infra.clickhouse import ClickHouse
from projections.observability import CLICKHOUSE_VIEWS, LLM_CALLS, RUN_STARTS
from projections.observability.cost_versions import AS_IT_CAME
from projections.observability.kept_sums import HOUR_MICROS
from projections.observability.llm_call_list import Selection, order_by, page
from projections.observability.llm_call_sums import aggregates, per_model_and_day
from projections.observability.ordering import Query, Window
from projections.observability.run_groups import Groups, costs, count, details
from projections.observability.run_groups import order_by as order_of_groups
from projections.observability.run_groups import page as page_of_groups
from projections.observability.run_groups import runs as runs_of_group
from projections.observability.run_starts import NO_SESSION, SESSION_NUMBER
from projections.observability.unmerged import VIEWS, Parts, as_they_lie
from tests.api.harness import OTHER_TENANT, TENANT
from tests.api.observability.world import NOON, World

RUNS = 12
ROUNDS = 4
EVERYTHING = aggregates(Selection(tenant=TENANT))


class Watched:
    """Analytics that keep what they were asked."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self.asked: list[str] = []

    async def query(
        self, sql: str, params: Mapping[str, Any] | None = None
    ) -> Sequence[Mapping[str, Any]]:
        self.asked.append(sql)
        return await self._clickhouse.query(sql, params)

    @property
    def looked_for_duplicates(self) -> int:
        return sum(" FINAL " in sql for sql in self.asked)


@pytest.fixture
async def stored(world: World) -> World:
    """Calls of a run in two parts, none of them a repeat; merges are stopped."""
    for view in CLICKHOUSE_VIEWS:
        await world.clickhouse.command(f"SYSTEM STOP MERGES {view.table}")
    run_id = await world.start(session_id="s", user_id="u")
    await world.calls(run_id, {"id": "a", "cost": 1})
    await world.fold()
    first = len(world.records)
    await world.calls(run_id, {"id": "b", "cost": 2})
    await world.fold(world.records[first:])
    return world


async def now_settled(
    parts: SettledParts, tables: Sequence[str] = (LLM_CALLS.table,)
) -> Mapping[str, Parts] | None:
    """Of the parts that there are now, however recently they were listed."""
    await parts.hold_all(TENANT, dict.fromkeys(tables, ()))
    return await parts.of(TENANT, tables)


async def merge(world: World) -> None:
    for view in VIEWS:
        await world.clickhouse.command(f"SYSTEM START MERGES {view.table}")
        await world.clickhouse.command(f"OPTIMIZE TABLE {view.table} FINAL")


async def test_parts_are_looked_through_when_there_are_others(stored: World) -> None:
    watched = Watched(stored.clickhouse)
    parts = SettledParts(watched)  # type: ignore[arg-type]
    assert await now_settled(parts)
    assert watched.looked_for_duplicates == 1
    run_id = await stored.start()
    await stored.calls(run_id, {"id": "c"})
    await stored.fold(stored.records[-1:])
    await now_settled(parts)
    assert watched.looked_for_duplicates == 2
    await now_settled(parts)
    assert watched.looked_for_duplicates == 2
    await merge(stored)
    found = await now_settled(parts)
    assert found is not None
    (row,) = await stored.clickhouse.query(*as_they_lie(EVERYTHING))
    assert row["calls"] == 3
    assert await parts.hold_all(TENANT, found)


async def test_rows_that_come_after_parts_were_listed_are_noticed(stored: World) -> None:
    parts = settled_parts(stored.app.services)
    found = await now_settled(parts)
    assert found is not None
    await stored.fold()  # all of it once more
    assert not await parts.hold_all(TENANT, found)
    # Not of another tenant, whose rows have not changed.
    assert await parts.hold_all(OTHER_TENANT, found)
    (row,) = await exactly(stored.app.services, TENANT, lambda ask: ask(EVERYTHING))
    assert (row["calls"], row["total_pico"]) == (2, str(3 * 10**12))
    assert await now_settled(parts) is None
    await merge(stored)
    assert await now_settled(parts) is not None


async def test_repeats_that_are_merged_away_before_the_look_afterwards_are_noticed(
    stored: World,
) -> None:
    parts = settled_parts(stored.app.services)
    found = await now_settled(parts)
    assert found is not None
    await stored.fold()
    await merge(stored)
    assert await now_settled(parts) is not None
    assert not await parts.hold_all(TENANT, found)


async def test_an_answer_is_made_anew_when_rows_come_while_it_is_made(stored: World) -> None:
    services, made = stored.app.services, []

    async def answer(ask: Ask) -> Any:
        (before,) = await ask(EVERYTHING)
        if not made:
            await stored.fold()
        (after,) = await ask(EVERYTHING)
        made.append(after["calls"])
        return before["calls"], after["calls"]

    await now_settled(settled_parts(services))
    assert await exactly(services, TENANT, answer) == (2, 2)
    assert len(made) == 2


async def test_one_look_at_the_parts_is_for_all_queries_of_an_answer(stored: World) -> None:
    watched = Watched(stored.clickhouse)
    services = dataclasses.replace(stored.app.services, analytics=watched, caches={})

    async def answer(ask: Ask) -> Any:
        return [await ask(EVERYTHING) for _ in range(3)]

    await exactly(services, TENANT, answer)
    watched.asked.clear()
    await exactly(services, TENANT, answer)
    assert sum("system.parts" in sql for sql in watched.asked) <= 2
    assert sum(LLM_CALLS.table in sql for sql in watched.asked) == 3


async def test_a_table_that_took_the_place_of_another_is_looked_through(stored: World) -> None:
    table, beside = LLM_CALLS.table, f"{LLM_CALLS.table}_rebuild"
    watched = Watched(stored.clickhouse)
    parts = SettledParts(watched)  # type: ignore[arg-type]
    before = await now_settled(parts)
    await stored.clickhouse.command(LLM_CALLS.ddl(beside))
    names = ", ".join(LLM_CALLS.stored)
    for _ in range(2):  # the parts have the names of the first table's
        copy = f"INSERT INTO {beside} ({names}) SELECT {names} FROM {table}"
        await stored.clickhouse.command(copy)
    await stored.clickhouse.command(f"EXCHANGE TABLES {table} AND {beside}")
    assert before is not None
    assert not await parts.hold_all(TENANT, before)
    assert await now_settled(parts) is None


async def test_what_is_kept_of_a_person_goes_with_the_rows(stored: World) -> None:
    table = RUN_STARTS.table
    await merge(stored)
    blank = f"ALTER TABLE {table} UPDATE user_id = '', session_id = '' WHERE user_id = 'u'"
    await stored.clickhouse.command(f"{blank} SETTINGS mutations_sync = 1")
    held = {
        (name, column)
        for name, sql in RUN_STARTS.projections.items()
        for column in ("user_id", "session_id")
        if column in sql
    }
    assert len({column for _, column in held}) == 2
    for name, column in held:
        kept = f"mergeTreeProjection(currentDatabase(), '{table}', '{name}')"
        of, none = column, "''"
        if SESSION_NUMBER in RUN_STARTS.projections[name]:
            of, none = f"`{SESSION_NUMBER}`", NO_SESSION
        rows = await stored.clickhouse.query(f"SELECT {of} = {none} AS gone FROM {kept}")
        assert [row["gone"] for row in rows] == [1], name


def questions(dice: random.Random) -> list[Query]:
    """A random selection of calls in several ways; groups of runs."""
    bounds = [dice.choice([None, NOON + dice.randrange(0, 90 * HOUR_MICROS)]) for _ in range(2)]
    since, until = sorted(bounds, key=lambda at: at or 0) if None not in bounds else bounds
    selection = Selection(
        tenant=TENANT,
        models=dice.choice([[], ["m1"], ["m1", "m2"]]),
        agent=dice.choice(["", "", "a1"]),
        search=dice.choice(["", "", "iece"]),
        since=since,
        until=until,
    )
    order = order_by(dice.choice(["-cost", "-total_tokens", "cost", "-created_at"]))
    window = Window(dice.choice([1, 3, 25]), dice.choice([0, 2]))
    by = dice.choice(["session_id", "user_id"])
    groups = Groups(tenant=TENANT, by=by, search=dice.choice(["", "1"]))
    measure = dice.choice(["last_at", "first_at", "run_count"])
    ids, recent = ["1", "2", "3"], NOON + dice.randrange(0, 90 * HOUR_MICROS)
    return [
        aggregates(selection),
        per_model_and_day(selection),
        page(selection, order, window),
        count(groups),
        page_of_groups(groups, order_of_groups(measure, descending=True), window),
        page_of_groups(groups, order_of_groups("last_at", descending=True), window, since=recent),
        Query(f"{(found := details(TENANT, by, ids)).sql} ORDER BY id", found.params),
        Query(f"{(found := costs(TENANT, by, ids, AS_IT_CAME)).sql} ORDER BY id", found.params),
        runs_of_group(
            TENANT, by, dice.choice(ids), window, AS_IT_CAME, newest_first=dice.random() < 0.5
        ),
    ]


async def same_both_ways(world: World, dice: random.Random) -> None:
    for _ in range(ROUNDS):
        for query in questions(dice):
            replaced = await world.clickhouse.query(*query)
            found = await exactly(world.app.services, TENANT, methodcaller("__call__", query))
            assert found == replaced, query


async def settled(world: World) -> bool:
    tables = [view.table for view in VIEWS]
    return await now_settled(settled_parts(world.app.services), tables) is not None


async def test_answers_are_the_same_of_rows_as_they_lie_and_with_duplicates_replaced(
    world: World,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(RUNS):
        world.clock.advance(dice.randrange(8 * 3600))
        run_id = await world.start(
            f"a{dice.randrange(3)}",
            session_id=f"{dice.randrange(4)}",
            user_id=f"{dice.randrange(5)}",
        )
        calls = [
            {
                "model": f"m{dice.randrange(3)}",
                "cost": dice.randrange(5) / 10,
                "tokens_in": dice.randrange(3),
                "prompt_preview": dice.choice(["a piece", "nothing"]),
            }
            for _ in range(dice.randrange(1, 6))
        ]
        await world.calls(run_id, *calls)
        world.clock.advance(dice.randrange(3600))
        if dice.random() < 0.7:
            await world.report(f"{run_id}/complete/", {})
    records = list(world.records)
    cuts = sorted(dice.sample(range(1, len(records)), 3))
    for begin, end in zip([0, *cuts], [*cuts, len(records)], strict=True):
        await world.fold(records[begin:end])
    assert await settled(world)
    await same_both_ways(world, dice)
    await world.fold(dice.sample(records, 10))
    await same_both_ways(world, dice)
    await merge(world)
    assert await settled(world)
    await same_both_ways(world, dice)
