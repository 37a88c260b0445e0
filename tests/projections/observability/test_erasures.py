"""The read models of erasures, and the SQL that blanks rows: values, no database."""

import pytest

from projections.observability import CLICKHOUSE_VIEWS, LLM_CALLS, SPANS
from projections.observability.erased_rows import blank_rows, count_rows, find_full, is_of
from projections.observability.user_erasures import reduce, reduce_read_models
from projections.statements import Put, Set
from schemas.envelope import SYSTEM, Envelope
from schemas.observability.erasure import (
    ReadModelErased,
    UserErasureCompleted,
    UserErasureRequested,
    UserKeyDropped,
)
from schemas.observability.personal import PERSONAL
from schemas.observability.run import ITEMS

AT = 1_700_000_000_000_000
NAME = "person_0123456789abcdef/0"
ENVELOPE = Envelope("evt_1", "x", "ten_1", "observability.erasure/era_1", 1, AT, SYSTEM)
KEY = {"tenant": "ten_1", "erasure_id": "era_1"}


def test_a_receipt_is_written_step_by_step() -> None:
    requested = {
        "status": "requested",
        "key_name": NAME,
        "requested_at": AT,
        "requested_by": "weir",
    }
    dropped = {"status": "key_dropped", "key_dropped_at": AT + 1}
    completed = {"status": "completed", "completed_at": AT + 2}
    assert reduce(UserErasureRequested(key=NAME, at=AT), ENVELOPE) == [Put(KEY, requested)]
    assert reduce(UserKeyDropped(key=NAME, at=AT + 1), ENVELOPE) == [Set(KEY, dropped)]
    assert reduce(UserErasureCompleted(key=NAME, at=AT + 2), ENVELOPE) == [Set(KEY, completed)]


def test_each_read_model_has_a_line_of_its_own() -> None:
    event = ReadModelErased(
        key=NAME, read_model="spans", rows=3, positions=["telemetry:0:7"], at=AT
    )
    values = {"rows_erased": 3, "positions": '["telemetry:0:7"]', "erased_at": AT}
    assert reduce_read_models(event, ENVELOPE) == [Put({**KEY, "read_model": "spans"}, values)]
    assert reduce(event, ENVELOPE) == []


def test_every_view_of_something_personal_says_what_a_blank_row_is() -> None:
    personal = {ITEMS.get(kind, "") for kind in PERSONAL} | set(PERSONAL)
    for view in CLICKHOUSE_VIEWS:
        of_persons = any(event in personal or event in ITEMS for event in view.events)
        assert bool(view.personal) == of_persons == ("sealed_for" in view.columns), view.name
        assert set(view.personal) <= set(view.columns)
        assert not set(view.personal) & set(view.order_by)


def test_rows_of_one_key_are_blanked_and_counted() -> None:
    columns = ["tenant", "attributes", "input_data", "output_data", "sealed_for"]
    person = "tenant = {tenant:String} AND sealed_for = {key:String}"
    assert blank_rows(SPANS, "spans_v2", columns) == (
        "ALTER TABLE spans_v2 UPDATE attributes = '{}', input_data = '{}', output_data = '{}'"
        f" WHERE {person}"
    )
    counted = count_rows(SPANS, "spans_v2", columns)
    assert f"FROM spans_v2 WHERE {person}" in counted
    assert "attributes = '{}' AND input_data = '{}'" in counted


def test_a_table_of_an_older_version_is_blanked_as_far_as_it_goes() -> None:
    sql = blank_rows(SPANS, "spans_v1", ["attributes", "sealed_for"])
    assert "input_data" not in sql
    assert "UPDATE attributes = '{}' WHERE" in sql


@pytest.mark.parametrize(
    ("table", "is_one"),
    [
        (LLM_CALLS.table, True),
        ("llm_calls_v1", True),
        (f"{LLM_CALLS.table}_rebuild", True),
        (f"{LLM_CALLS.table}_replaced", True),
        ("spans_v2", False),
        ("other_llm_calls_v3", False),
    ],
)
def test_tables_of_a_view_are_told_by_their_names(table: str, is_one: bool) -> None:
    assert is_of(LLM_CALLS, table) is is_one


def test_what_came_back_is_looked_for_by_many_keys_at_once() -> None:
    sql = find_full(SPANS)
    assert f"FROM {SPANS.table} WHERE (tenant, sealed_for) IN" in sql
    assert "AND NOT (attributes = '{}'" in sql
