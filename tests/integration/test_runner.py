"""What the runner writes to a real table is what the statements say, one after the other."""

import json
import random
from typing import Any

from infra.config import Settings
from infra.postgres import connect
from projections.runner import apply, create_table
from projections.statements import Delete, Put, Set, Statement, View
from tests.projections.plain_table import carry_out

VIEW = View(
    name="doors",
    version=1,
    events=(),
    columns={
        "tenant": "text",
        "id": "text",
        "label": "text",
        "opened_at": "bigint",
        "share": "float8",
        "open": "boolean",
        "extra": "jsonb",
    },
    key=("tenant", "id"),
    reduce=lambda event, envelope: (),
)
LABELS = ("plain", 'quoted "so"', "back\\slash", "ünïcödé 🚪", "", "null", "{}", None)


def values(dice: random.Random) -> dict[str, Any]:
    every = {
        "label": dice.choice(LABELS),
        "opened_at": dice.choice((None, 0, -1, 2**63 - 1)),
        "share": dice.choice((None, 0.1, 1e300, -0.0)),
        "open": dice.choice((None, True, False)),
        "extra": dice.choice((None, "{}", '{"a": [1, "b", null]}', '"text"', "3")),
    }
    return {name: every[name] for name in dice.sample(sorted(every), dice.randint(0, len(every)))}


def statement(dice: random.Random) -> Statement:
    key = {"tenant": "t", "id": dice.choice("abcdef")}
    kind = dice.choice((Put, Put, Set, Delete))
    return Delete(key) if kind is Delete else kind(key, values(dice))


async def test_batches_leave_what_their_statements_say(settings: Settings) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    expected: dict[str, dict[str, Any]] = {}
    connection = await connect(settings.database_url, autocommit=True)
    async with connection:
        for ddl in create_table(VIEW):
            await connection.execute(ddl.encode())
        for _ in range(60):
            batch = [statement(dice) for _ in range(dice.randint(1, 20))]
            for item in batch:
                carry_out(expected, item)
            await apply(connection, [(VIEW, item) for item in batch])
            cursor = await connection.execute(f"SELECT * FROM {VIEW.table}".encode())
            found = {row["id"]: row for row in await cursor.fetchall()}
            assert found == {id: row_of(id, values) for id, values in expected.items()}


def row_of(id: str, values: dict[str, Any]) -> dict[str, Any]:
    row = dict.fromkeys(VIEW.columns) | values | {"tenant": "t", "id": id}
    if row["extra"] is not None:
        row["extra"] = json.loads(row["extra"])
    return row
