"""The door to ClickHouse: what an insert and a query promise, on the engine inside the process and
on a server of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clickhouse import AnalyticsUnavailable, ClickHouse, RowsRefused
from infra.embedded.ports import free_port
from projections.observability.ordering import like
from schemas.envelope import Position
from tests.clickhouse_server import clickhouse_server

TABLE = """CREATE TABLE IF NOT EXISTS things (id String, n Int64, text String,
 INDEX by_text text TYPE text(tokenizer = splitByNonAlpha))
 ENGINE = ReplacingMergeTree ORDER BY id
 SETTINGS non_replicated_deduplication_window = 100"""
NAMES, TYPES = ("id", "n", "text"), ("String", "Int64", "String")


@pytest.fixture(params=["chdb", "http"])
async def clickhouse(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ClickHouse]:
    with contextlib.ExitStack() as stack:
        url = f"chdb://{tmp_path}"
        if request.param == "http":
            url = stack.enter_context(clickhouse_server(tmp_path))
        engine = ClickHouse(url, tables={"telemetry": ["things"]})
        try:
            await engine.start()
            await engine.command(TABLE)
            yield engine
        finally:
            await engine.stop()


async def insert(clickhouse: ClickHouse, token: str, *rows: tuple[str, int, str]) -> None:
    await clickhouse.insert("things", NAMES, TYPES, list(zip(*rows, strict=True)), token=token)


async def count(clickhouse: ClickHouse, settings: str = "") -> int:
    rows = await clickhouse.query(f"SELECT count() AS n FROM things {settings}")
    return int(rows[0]["n"])


async def test_the_same_token_inserts_once(clickhouse: ClickHouse) -> None:
    for token in ("a", "a", "b"):
        await insert(clickhouse, token, ("x", 1, ""), ("y", 2, ""))
    assert await count(clickhouse, "SETTINGS final = 0") == 4
    assert await count(clickhouse) == 2


async def test_an_insert_of_many_megabytes_is_one_part(clickhouse: ClickHouse) -> None:
    """It travels in many blocks; were it several parts, a crash could leave some of them."""
    rows = [(str(n), n, "word " * 100) for n in range(60_000)]
    await insert(clickhouse, "big", *rows)
    found = await clickhouse.query(
        "SELECT rows FROM system.parts WHERE active AND table = 'things' SETTINGS final = 0"
    )
    assert found == [{"rows": 60_000}]


EVERY = {
    "word": "LowCardinality(String)",
    "text": "String",
    "whole": "Int64",
    "part": "Float64",
    "at": "DateTime64(6, 'UTC')",
    "place": "UInt64",
    "small": "UInt32",
}


async def test_arrow_columns_are_stored_as_plain_values_are(clickhouse: ClickHouse) -> None:
    values = [
        ["a", "", "a"],
        ["naïve\n日本", "", "\0'\\"],
        [-(2**63), 0, 2**63 - 1],
        [0.1, -0.0, 1e300],
        [1_700_000_000_000_001, 0, 253_402_300_799_999_999],
        [0, 1, 2**63 - 1],
        [0, 1, 2**32 - 1],
    ]
    lines = ", ".join(f"{name} {kind}" for name, kind in EVERY.items())
    stored = []
    for kind, columns in (("plain", values), ("arrow", [pa.array(column) for column in values])):
        await clickhouse.command(f"CREATE TABLE {kind} ({lines}) ENGINE = MergeTree ORDER BY small")
        await clickhouse.insert(kind, list(EVERY), list(EVERY.values()), columns, token="")
        query = f"SELECT * REPLACE(toUnixTimestamp64Micro(at) AS at) FROM {kind} ORDER BY small"
        stored.append(await clickhouse.query(f"{query} SETTINGS final = 0"))
    assert stored[0] == stored[1]
    assert [row["text"] for row in stored[1]] == values[1]
    assert [row["at"] for row in stored[1]] == values[4]


async def test_an_insert_of_many_arrow_pieces_is_one_part_and_in_once(
    clickhouse: ClickHouse,
) -> None:
    numbers = list(range(20_001))
    columns = [pa.array([str(n) for n in numbers]), pa.array(numbers), pa.array(["w"] * 20_001)]
    for _ in range(2):
        await clickhouse.insert("things", NAMES, TYPES, columns, token="arrow")
    found = await clickhouse.query(
        "SELECT rows FROM system.parts WHERE active AND table = 'things' SETTINGS final = 0"
    )
    assert found == [{"rows": 20_001}]


async def test_an_arrow_value_that_does_not_fit_is_refused_for_good(
    clickhouse: ClickHouse,
) -> None:
    columns = [pa.array(["x"]), pa.array([300]), pa.array([""])]
    with pytest.raises(RowsRefused, match="things"):
        await clickhouse.insert("things", NAMES, ("String", "Int8", "String"), columns, token="b")
    assert await count(clickhouse) == 0


async def test_a_value_that_fits_no_column_is_refused_for_good(clickhouse: ClickHouse) -> None:
    with pytest.raises(RowsRefused, match="things"):
        await insert(clickhouse, "bad", ("x", 2**63, ""))
    assert await count(clickhouse) == 0


async def test_what_a_query_gets_wrong_is_not_an_outage(clickhouse: ClickHouse) -> None:
    with pytest.raises(Exception, match="SYNTAX_ERROR"):
        await clickhouse.query("SELECT FROM WHERE")


async def test_a_table_that_is_not_made_yet_is_an_outage(clickhouse: ClickHouse) -> None:
    with pytest.raises(AnalyticsUnavailable):
        await clickhouse.query("SELECT * FROM nothing")


async def test_queries_run_beside_each_other(clickhouse: ClickHouse) -> None:
    await insert(clickhouse, "a", ("x", 7, ""))
    found = await asyncio.gather(
        *(clickhouse.query("SELECT n, {m:Int64} AS m FROM things", {"m": m}) for m in range(20))
    )
    assert found == [[{"n": 7, "m": m}] for m in range(20)]


async def test_too_many_waiting_queries_are_turned_away(clickhouse: ClickHouse) -> None:
    asked = [clickhouse.query("SELECT 1 AS one") for _ in range(100)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    answered = [item for item in found if item == [{"one": 1}]]
    refused = [item for item in found if isinstance(item, AnalyticsUnavailable)]
    assert len(answered) + len(refused) == 100
    assert refused


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    engine = ClickHouse(f"http://default:p%40ss@127.0.0.1:{free_port()}/weir")
    try:
        with pytest.raises(AnalyticsUnavailable):
            await engine.query("SELECT 1")
    finally:
        await engine.stop()


async def test_positions_of_a_partition_that_is_followed(clickhouse: ClickHouse) -> None:
    clickhouse.follow([("telemetry", 1)])
    place = Position("telemetry", 1, 5)
    waiting = asyncio.create_task(clickhouse.reached(place, timeout=10))
    for next_offset in (4, 5, 6):
        await asyncio.sleep(0)
        assert not waiting.done()
        clickhouse.advance({("telemetry", 1): next_offset})
    assert await waiting
    assert not await clickhouse.reached(Position("telemetry", 1, 6), timeout=0.01)


async def test_a_topic_that_no_view_reads_has_nothing_to_wait_for(clickhouse: ClickHouse) -> None:
    assert await clickhouse.reached(Position("events", 0, 99), timeout=0.01)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORDS = st.lists(st.sampled_from(["Gpt", "50%", "_x_", "naïve", "日本", "a\\b", "'q'"]), max_size=4)


def test_any_text_survives_a_parameter_and_is_found_by_any_of_its_parts(tmp_path: Path) -> None:
    """Search is a substring search, whatever the index over it makes of the words."""
    with asyncio.Runner() as runner:
        engine = ClickHouse(f"chdb://{tmp_path}")

        @settings(max_examples=60)
        @given(st.one_of(TEXT, WORDS.map(" ".join)), st.data())
        def check(text: str, data: st.DataObject) -> None:
            start = data.draw(st.integers(0, len(text)))
            needle = text[start : data.draw(st.integers(start, len(text)))]
            absent = data.draw(TEXT.filter(lambda other: other.lower() not in text.lower()))
            runner.run(insert(engine, "", (text, 1, text.lower())))
            for part, found in ((needle, True), (absent, False)):
                rows = runner.run(
                    engine.query(
                        "SELECT id FROM things WHERE id = {id:String} AND text LIKE {like:String}",
                        {"id": text, "like": like(part)},
                    )
                )
                assert [row["id"] for row in rows] == ([text] if found else [])

        try:
            runner.run(engine.command(TABLE))
            check()
        finally:
            runner.run(engine.stop())
