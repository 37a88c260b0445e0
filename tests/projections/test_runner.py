"""Folding the statements of a batch changes nothing about their effect."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from projections.runner import create_table, fold
from projections.statements import Delete, Put, Set, Statement, View
from tests.projections.plain_table import carry_out

VIEW = View(
    name="doors",
    version=3,
    events=(),
    columns={"tenant": "text", "id": "text", "a": "bigint", "b": "bigint"},
    key=("tenant", "id"),
    reduce=lambda event, envelope: (),
    indexes=("(tenant, a)", "unique (tenant, b)"),
)

keys = st.sampled_from(["x", "y"]).map(lambda id: {"tenant": "t", "id": id})
values = st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 5), max_size=2)
statements = st.one_of(
    st.builds(Put, keys, values), st.builds(Set, keys, values), st.builds(Delete, keys)
)


@given(st.lists(statements, max_size=12))
def test_a_folded_batch_has_the_effect_of_its_statements_in_order(batch: list[Statement]) -> None:
    plain: dict[str, dict[str, Any]] = {}
    folded: dict[str, dict[str, Any]] = {}
    for statement in batch:
        carry_out(plain, statement)
    rounds = fold(VIEW, batch)
    for part in rounds:
        for statement in part.values():
            carry_out(folded, statement)
    assert folded == plain


def test_a_hot_row_costs_one_write() -> None:
    key = {"tenant": "t", "id": "x"}
    rounds = fold(VIEW, [Put(key, {"a": 1}), Set(key, {"a": 2}), Set(key, {"b": 3})])
    assert rounds == [{("t", "x"): Put(key, {"a": 2, "b": 3})}]


def test_the_table_carries_the_version() -> None:
    assert create_table(VIEW) == [
        'CREATE TABLE IF NOT EXISTS "doors_v3" ("tenant" text, "id" text, "a" bigint, '
        '"b" bigint, PRIMARY KEY ("tenant", "id"))',
        'CREATE INDEX IF NOT EXISTS "doors_v3_0" ON "doors_v3" (tenant, a)',
        'CREATE UNIQUE INDEX IF NOT EXISTS "doors_v3_1" ON "doors_v3" (tenant, b)',
    ]
